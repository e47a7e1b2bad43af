// What an operator can do with a server: a button, a dialog that says what will happen, and what came of it.

import { put, say, several, span } from "./elements.js";
import { change } from "./stream.js";

const open = (server) => Object.values(server.open).reduce((sum, number) => sum + number, 0);
const isDrained = (server) => server.drain !== null;
const state = (state) => ({ path: "state", with: { state } });

/**
 * By its name: the word on the button, which servers it fits, what is asked of the API, what that means, and
 * what is said when it is done.
 */
export const ACTIONS = {
  drain: {
    label: "Drain",
    fits: (server) => server.state !== "maint" && !isDrained(server),
    request: { path: "drain" },
    means: (server, upstream) => `Nobody new comes there. ${several(open(server), "connection")} will be ended over `
      + `${span(upstream.drain_spread_seconds)}, and their clients come back to other servers. `
      + `What is left after ${span(upstream.drain_timeout_seconds)} is told at once.`,
    done: "is being drained",
  },
  undrain: {
    label: "Undrain",
    fits: isDrained,
    request: { path: "undrain" },
    means: (server) => `Whoever has not left stays (${several(open(server), "connection")}), and new clients come again.`,
    done: "is drained no more",
  },
  ready: {
    label: "Ready",
    fits: (server) => server.state !== "ready" && !isDrained(server),
    request: state("ready"),
    means: () => "New clients come, and its own return to it, until the file or an operator says otherwise.",
    done: "is ready",
  },
  maint: {
    label: "Maint",
    fits: (server) => server.state !== "maint",
    request: state("maint"),
    means: (server) => "It gets nothing more, and sessions that are pinned to it are lost. "
      + `What is open stays open: ${several(open(server), "connection")}.`,
    done: "is in maintenance",
  },
  file: {
    label: "As in the file",
    fits: (server) => server.state_by === "operator" && !isDrained(server),
    request: state("file"),
    means: () => "The operator’s word is taken back; the state in the configuration file counts again.",
    done: "is as the file says",
  },
};

/** Milliseconds for which it is said that something is done. */
const SAID = 10_000;

/** The dialog. Answers a function that asks whether to do something with a server, and does it. */
export function dialog() {
  const of = (part) => document.getElementById(`change-${part}`);
  const [box, title, text, wrong, yes, no] = [document.getElementById("change"), ...["title", "text", "wrong", "yes", "no"].map(of)];
  const result = document.getElementById("result");
  let [asked, forgetting] = [null, 0];

  no.addEventListener("click", () => box.close());
  // Below the backdrop there is nothing else of this element.
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.addEventListener("close", () => {
    const { server, opener } = asked;
    asked = null;
    // The button may be gone by the next word of the proxy: then the focus is on what it belonged to.
    if (opener.hidden || !opener.isConnected) server.focus();
  });
  box.addEventListener("submit", async (event) => {
    event.preventDefault();
    const doing = asked;
    put(yes, "disabled", true);
    say(wrong, "");
    try {
      const { path, with: more } = doing.action.request;
      await change(path, { upstream: doing.upstream.name, server: doing.name, ...more });
      tell(`${doing.name} of ${doing.upstream.name} ${doing.action.done}.`);
      if (asked === doing) {
        put(doing.opener, "hidden", true);
        box.close();
      }
    } catch (error) {
      // Whoever has closed the dialog meanwhile hears of it all the same.
      if (asked === doing) say(wrong, `Not done: ${error.message}`);
      else tell(`${doing.name} of ${doing.upstream.name}: not done: ${error.message}`);
    } finally {
      put(yes, "disabled", false);
    }
  });

  function tell(sentence) {
    say(result, sentence);
    clearTimeout(forgetting);
    forgetting = setTimeout(() => say(result, ""), SAID);
  }

  return (opener, name, upstream, server) => {
    const action = ACTIONS[name];
    asked = { action, upstream, name: server.name, opener, server: opener.closest("[data-server]").querySelector("h3") };
    say(title, `${action.label}: ${server.name} of ${upstream.name}?`);
    say(text, action.means(server, upstream));
    say(wrong, "");
    say(yes, action.label);
    box.showModal();
  };
}
