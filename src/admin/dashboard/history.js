// The last ten minutes, as far as this page has watched them: what charts show and what rates are made of.
// Times are the proxy's own, so that a page that was asleep draws no wrong picture.

/** Seconds that are kept. */
export const SPAN = 600;
/** The most moments that are kept: the proxy tells one a second, and a new process begins another count. */
const MOMENTS_MAX = SPAN + 100;
/** Seconds over which a rate is taken that people read. */
const RATE_SPAN = 5;

/** What is shown per second: its name, and which counters it is the sum of. */
export const RATES = [
  ["Requests", ["requests"]],
  ["WebSocket and tunnel handshakes", ["requests/1xx"]],
  ["TLS handshakes", ["tls_handshakes"]],
  ["Keepalives and pings inserted", ["keepalives", "pings"]],
  ["Ends of those that stay", ["ends/websocket", "ends/sse", "ends/tunnel"]],
  ["Refusals and errors", ["errors", "refused_connections"]],
];

export class History {
  /** Oldest first: { at, process, open, counters, rates }, `at` in seconds by the proxy’s clock. */
  moments = [];

  /** Another status has come. */
  add(status) {
    const { started_at, uptime_seconds, pid } = status.process;
    const at = Date.parse(started_at) / 1000 + uptime_seconds;
    const last = this.moments.at(-1);
    // The clock of a machine can be set back between two processes.
    if (last && at <= last.at) this.moments = this.moments.filter((moment) => moment.at < at);
    const open = {};
    for (const { open: kinds } of status.upstreams) {
      for (const [kind, number] of Object.entries(kinds)) open[kind] = (open[kind] ?? 0) + number;
    }
    const moment = { at, process: `${pid} ${started_at}`, open, counters: flat(status.totals) };
    this.moments.push(moment);
    moment.rates = this.#rates();
    const kept = this.moments.findIndex((moment) => moment.at > at - SPAN);
    this.moments.splice(0, Math.max(kept, this.moments.length - MOMENTS_MAX));
  }

  /** By how much a counter has grown within the last so many seconds. */
  increase(counter, seconds = 60) {
    const [first, last] = this.#ends(seconds);
    return sum(last.counters, counter) - sum(first.counters, counter);
  }

  /** That of each of RATES; null when nothing is known of the time before. */
  #rates() {
    const [first, last] = this.#ends(RATE_SPAN);
    if (first === last) return null;
    const grown = (counter) => this.increase(counter, RATE_SPAN);
    return RATES.map(([, counters]) => counters.map(grown).reduce((all, it) => all + it) / (last.at - first.at));
  }

  /** The first and the last moment of this process within the last so many seconds. */
  #ends(seconds) {
    const last = this.moments.at(-1);
    const isOf = (moment) => moment.at >= last.at - seconds - 0.5 && moment.process === last.process;
    return [this.moments.find(isOf), last];
  }
}

/** What a counter has come to, or all those below it. */
function sum(counters, counter) {
  const below = `${counter}/`;
  let all = counters.get(counter) ?? 0;
  for (const [path, number] of counters) if (path.startsWith(below)) all += number;
  return all;
}

/** Counters by their path: ends/sse/idle. */
function flat(totals, above = "", into = new Map()) {
  for (const [name, value] of Object.entries(totals)) {
    if (typeof value === "number") into.set(above + name, value);
    else flat(value, `${above}${name}/`, into);
  }
  return into;
}
