// Tables of what has been counted: in the last minute, and since the process began.

import { count, element, list, put, say, words } from "./elements.js";

/** Why those ended that came to stay, and plain requests beside them. */
export function showEnds(body, history) {
  const counters = history.moments.at(-1).counters;
  const reasons = new Set([...counters.keys()].map((path) => /^ends\/[^/]*\/(.*)$/.exec(path)?.[1]).filter(Boolean));
  const rows = [...reasons].map((reason) => {
    const sums = (kinds, of) => kinds.reduce((sum, kind) => sum + of(`ends/${kind}/${reason}`), 0);
    const [recent, ever] = [(path) => history.increase(path), (path) => counters.get(path) ?? 0];
    const [staying, plain] = [["websocket", "sse", "tunnel"], ["http"]];
    return { name: reason, numbers: [sums(staying, recent), sums(staying, ever), sums(plain, recent), sums(plain, ever)] };
  });
  const used = rows.filter(({ numbers }) => numbers.some((number) => number > 0));
  used.sort((a, b) => b.numbers[1] - a.numbers[1] || b.numbers[3] - a.numbers[3] || a.name.localeCompare(b.name));
  show(body, used.map((row) => ({ ...row, name: words(row.name) })), 4);
}

/** What is counted of troubles: a name, the counter, and whether it is shown while it is zero. */
const TROUBLES = [
  ["Requests refused or failed", "errors", true],
  ["Requests of lost sessions", "lost_sessions", true],
  ["Streams that lost their server", "resumed", true],
  ["Damaged handshakes", "damaged_handshakes", true],
  ["Paced handshakes", "paced_handshakes", false],
  ["No TLS", "refused_connections/tls", false],
  ["No credible PROXY header", "refused_connections/proxy_protocol", false],
  ["Too many connections to answer", "refused_connections/untold", false],
  ["Not accepted", "refused_connections/not_accepted", false],
  ["Log lines lost", "log_lines_lost", false],
];

/** What was refused, what failed, and what was saved of it; by reason where there are some. */
export function showTroubles(body, history) {
  const { counters } = history.moments.at(-1);
  const rows = TROUBLES.flatMap(([name, counter, always]) => {
    const below = [...counters].filter(([path, ever]) => path.startsWith(`${counter}/`) && ever > 0);
    const ever = below.reduce((sum, [, number]) => sum + number, counters.get(counter) ?? 0);
    if (ever === 0 && !always) return [];
    const reasons = below.map(([path, number]) => {
      const reason = words(path.slice(counter.length + 1));
      return { name: reason, key: path, isPart: true, numbers: [history.increase(path), number] };
    });
    return [{ name, key: counter, numbers: [history.increase(counter), ever] }, ...reasons];
  });
  show(body, rows, 2);
}

function show(body, rows, columns) {
  const none = [{ name: "none so far", key: "none", numbers: [] }];
  list(body, rows.length > 0 ? rows : none, ({ key, name }) => key ?? name, ({ name, isPart }) => {
    const cells = Array.from({ length: columns }, () => element("td"));
    const root = element("tr", { class: isPart ? "part" : null }, element("th", { scope: "row" }, name), ...cells);
    return {
      root,
      show({ numbers }) {
        numbers.forEach((number, at) => {
          say(cells[at], count(number));
          put(cells[at], "class", number === 0 ? "zero" : null);
        });
      },
    };
  });
}
