// What the proxy says of itself, every second, for as long as the page is open; and how it is asked for anything.
//
// The token. EventSource cannot send one, so the stream is read by fetch. A cookie would do too, but browsers
// send cookies to every port of a host, so that whatever else listens on it would get them, and they come along
// with requests that other pages begin. The token is in sessionStorage instead: only pages of this very origin can
// read it, which is this one, and its policy lets no script run here but its own. It is gone with the tab, goes into
// no URL, and nothing is sent unless this code sends it.

const TOKEN = "steadfast-token";

/** Silence, in milliseconds, behind which what is shown is called stale: the proxy speaks every second. */
const STALE = 5_000;
/** Silence behind which the connection is given up: a network can lose one without a word. */
const LOST = 15_000;
/** Between two tries to connect: at first, and at most. Twice as long each time. */
const RETRY_FIRST = 500;
const RETRY_MOST = 8_000;
/** The most that an event may have. No proxy has so many servers. */
const EVENT_CHARACTERS_MAX = 16 * 1024 * 1024;

/** The token that is kept, or null. */
export const token = () => sessionStorage.getItem(TOKEN);

/** Keeps one, or none. */
export function keepToken(value) {
  if (value === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, value);
}

/** Asks the API to change something. Answers what it says; throws an Error with the detail of the problem. */
export async function change(path, body) {
  const headers = { "Content-Type": "application/json", "X-Steadfast": "1", ...credentials() };
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  const response = await reached(fetch(`api/v1/${path}`, request));
  if (!response.ok) throw new Error(await detail(response));
  const text = await response.text();
  return text.trimStart().startsWith("{") ? JSON.parse(text) : {};
}

/**
 * Listens for ever. Tells `hear.status(status)` what the proxy says, `hear.state(word, detail)` how that goes
 * ("live", "stale", "gone"), and waits for `hear.token(detail)` when one is missing or wrong.
 */
export async function listen(hear) {
  for (let failures = 0; ; failures += 1) {
    const connection = new AbortController();
    let heard = performance.now();
    const watch = setInterval(() => {
      const silence = performance.now() - heard;
      if (silence >= LOST) connection.abort(new Error("no word for long"));
      else if (silence >= STALE) hear.state("stale", `for ${Math.floor(silence / 1000)} s`);
    }, 250);
    try {
      const request = { headers: credentials(), cache: "no-store", signal: connection.signal };
      const response = await reached(fetch("api/v1/live", request));
      if (response.status === 401) {
        clearInterval(watch);
        await hear.token(token() === null ? "" : "That is not the proxy’s token.");
        failures = -1;
        continue;
      }
      if (!response.ok) throw new Error(await detail(response));
      for await (const { name, data } of events(response.body)) {
        heard = performance.now();
        failures = 0;
        if (name !== "status") continue;
        hear.status(JSON.parse(data));
        hear.state("live", "");
      }
      throw new Error("it has ended the stream");
    } catch (error) {
      hear.state("gone", error.message);
    } finally {
      clearInterval(watch);
      connection.abort();
    }
    const longest = Math.min(RETRY_FIRST * 2 ** failures, RETRY_MOST);
    await new Promise((resolve) => setTimeout(resolve, longest * (0.75 + Math.random() / 4)));
  }
}

function credentials() {
  const kept = token();
  return kept === null ? {} : { Authorization: `Bearer ${kept}` };
}

/** A response, or an Error in words: what browsers say of networks differs, and says little. */
async function reached(asking) {
  try {
    return await asking;
  } catch {
    throw new Error("it cannot be reached");
  }
}

/** What a response says of why it is no better one (RFC 9457). */
async function detail(response) {
  const text = await response.text();
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title ?? text;
  } catch {
    return text.trim() || `it answers ${response.status}`;
  }
}

/** The events of an event stream whose lines end as ours do: with a line feed, and perhaps a return before it. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, name, data, size] = ["", "", [], 0];
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (size + rest.length > EVENT_CHARACTERS_MAX) throw new Error("it says too much at once");
    for (const line of lines) {
      size += line.length;
      const [, field, text] = /^([^:]*)(?:: ?(.*?))?\r?$/s.exec(line);
      if (field === "event") name = text ?? "";
      else if (field === "data") data.push(text ?? "");
      else if (field === "" && text === undefined) {
        if (data.length > 0) yield { name: name || "message", data: data.join("\n") };
        [name, data, size] = ["", [], 0];
      }
    }
  }
}
