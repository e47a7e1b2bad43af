// Upstreams and their servers: who has how much of what is open, how they are, what can be asked of them.

import { ACTIONS } from "./changes.js";
import { KINDS, count, element, icon, list, percent, put, say, several, span, swap, words } from "./elements.js";

/** Shows the upstreams in `parent`; `act(button, action, upstream, server)` is called when one is pressed. */
export function showUpstreams(parent, upstreams, act) {
  list(parent, upstreams, (it) => it.name, (it) => card(it.name, act));
}

const all = (open) => Object.values(open).reduce((sum, number) => sum + number, 0);

/** An upstream. */
function card(name, act) {
  const [figure, summary] = [element("strong"), element("p", { class: "summary" })];
  const servers = element("ul", { class: "servers" });
  const title = element("h2", {}, element("span", { class: "soft" }, "Upstream "), name);
  const head = element("div", { class: "title" }, title, element("p", { class: "figure" }, figure, " open"));
  let shown = null;
  return {
    root: element("section", { class: "card upstream", "data-upstream": name }, head, summary, servers),
    show(upstream) {
      shown = upstream;
      const open = all(upstream.open);
      const most = (server) => Math.max(all(server.open), server.ideal_share * open);
      const scale = Math.max(1, ...upstream.servers.map(most));
      say(figure, count(open));
      say(summary, told(upstream));
      const items = upstream.servers.map((it) => ({ ...it, scale, ideal: it.ideal_share * open }));
      const press = (button, action, server) => act(button, action, shown, server);
      list(servers, items, (it) => it.name, (it) => row(it.name, press));
    },
  };
}

/** An upstream in a sentence. */
function told({ servers, rebalance, lost_sessions: lost, discoveries }) {
  const up = servers.filter((server) => server.is_up).length;
  const parts = [`${up} of ${several(servers.length, "server")} up`];
  // Of what those have that take new clients: what others still have is on its way to them.
  const taking = servers.filter((it) => it.ideal_share > 0);
  const part = taking.reduce((sum, it) => sum + it.share, 0);
  const most = Math.max(...taking.map((it) => it.share / it.ideal_share / part));
  if (part > 0 && taking.length > 1) parts.push(`the busiest has ${most.toFixed(2)} × its share`);
  // They are counted up to a thousand.
  const strays = rebalance?.strays >= 1000 ? "1,000 or more" : count(rebalance?.strays ?? 0);
  if (rebalance) parts.push(`${strays} stray, ${rebalance.percent_per_minute} % a minute move`);
  if (lost > 0) parts.push(`${several(lost, "request")} of lost sessions`);
  for (const { name, is_failing: fails } of discoveries) parts.push(fails ? `${name} has no good answer` : `found by ${name}`);
  return parts.join(" · ");
}

/** A server. */
function row(name, act) {
  const [address, figure, weight] = ["address soft", "figure", "soft"].map((of) => element("span", { class: of }));
  const segments = KINDS.map(([kind]) => element("span", { class: `segment of-${kind}` }));
  const tick = element("span", { class: "tick" });
  const bar = element("div", { class: "bar", role: "img" }, ...segments, tick);
  const [kinds, state, health] = [element("p", { class: "kinds" }), badge(), badge()];
  const [done, progress] = [element("span"), element("progress", { max: "1" })];
  const drain = element("div", { class: "drain", hidden: true }, element("label", {}, progress, done));
  const title = element("h3", { tabindex: "-1" }, name);
  let shown = null;
  const buttons = Object.entries(ACTIONS).map(([action, { label, fits }]) => {
    const button = element("button", { type: "button", "data-action": action }, label);
    button.append(element("span", { class: "unseen" }, ` ${name}`));
    button.addEventListener("click", () => act(button, action, shown));
    return [button, fits];
  });
  const root = element("li", { class: "server", "data-server": name },
    element("div", { class: "name" }, title, address, weight),
    element("div", { class: "load" }, bar, kinds, drain), figure,
    element("div", { class: "condition" }, state.root, health.root,
      element("div", { class: "buttons" }, ...buttons.map(([button]) => button))));
  return {
    root,
    show(it) {
      shown = it;
      const open = all(it.open);
      say(address, it.address === it.name ? "" : it.address);
      say(weight, `weight ${it.weight}${by(it.weight_by)}${it.slow_start === null ? "" : `, warm to ${percent(it.slow_start)}`}`);
      say(figure, count(open));
      KINDS.forEach(([kind], at) => segments[at].style.setProperty("width", share(it.open[kind] ?? 0, it.scale)));
      put(tick, "hidden", it.ideal === 0);
      tick.style.setProperty("left", share(it.ideal, it.scale));
      const parts = KINDS.filter(([kind]) => it.open[kind] > 0);
      const sentence = parts.map(([kind, one, many]) => several(it.open[kind], one, many)).join(" · ") || "nothing open";
      const ideal = it.ideal_share > 0 ? `${percent(it.share)}, ideally ${percent(it.ideal_share)}` : "no new clients";
      say(kinds, `${sentence} · ${ideal}`);
      put(bar, "aria-label", `${several(open, "open connection")}: ${sentence}; ${ideal}`);
      state.show(it.state, it.state + by(it.state_by));
      health.show(it.is_up ? "up" : "down", condition(it));
      showDrain(it.drain);
      for (const [button, fits] of buttons) put(button, "hidden", !fits(it));
      put(root, "data-up", it.is_up);
    },
  };

  function showDrain(it) {
    put(drain, "hidden", it === null);
    if (it === null) return;
    const left = Math.min(it.open, it.open_before);
    progress.value = it.open_before === 0 ? 1 : 1 - left / it.open_before;
    const time = `${span(Math.min(it.elapsed_seconds, it.timeout_seconds))} of ${span(it.timeout_seconds)}`;
    const end = it.open === 0 ? "drained: nobody is left" : `drained: the time is over, ${count(it.open)} left`;
    say(done, it.is_over ? end : `draining: ${count(it.open)} of ${count(it.open_before)} left, ${time}`);
  }
}

/** What is not as the file says it. */
const by = (whom) => (whom === "operator" ? ", by an operator" : "");

const share = (number, scale) => `${(100 * number) / scale}%`;

/** A word with its picture; a colour besides. */
function badge() {
  const [picture, text] = [icon("up"), element("span")];
  const root = element("p", { class: "badge" }, picture, text);
  return {
    root,
    show(word, sentence) {
      swap(picture, word);
      put(root, "data-is", word);
      say(text, sentence);
    },
  };
}

/** How a server is, since when and why. */
function condition({ is_up: isUp, health, connect_failures: failures }) {
  const { since_seconds: since, reason, found_by: by, checks, clients } = health;
  const found = reason === null ? "" : `${reason}${by === null ? "" : ` (${by === "checks" ? "a check" : "clients"})`}`;
  if (!isUp) return `down for ${span(since)}${found && `: ${found}`}`;
  const parts = [`up for ${span(since)}`];
  if (found) parts.push(`was down: ${found}`);
  if (checks === "unchecked") parts.push("not checked yet");
  if (clients !== null && clients !== "well") parts.push(`for clients ${words(clients)}`);
  if (failures > 0) parts.push(several(failures, "failed connection"));
  return parts.join("; ");
}
