// The dashboard: what the proxy says of itself every second, shown. Nothing is fetched from anywhere else, nothing is
// kept but the last ten minutes (history.js) and, for this tab, the token (stream.js).

import { openChart, rateCharts } from "./charts.js";
import { dialog } from "./changes.js";
import { showEnds, showTroubles } from "./counts.js";
import { clock, count, element, icon, list, put, say, several, span, words } from "./elements.js";
import { History } from "./history.js";
import { keepToken, listen, token } from "./stream.js";
import { showUpstreams } from "./upstreams.js";

const at = (id) => document.getElementById(id);
const history = new History();
const chart = openChart();
const showRates = rateCharts(at("rates"));
const ask = dialog();
let status = null;
let heard = null;

at("open-chart").append(chart.root);
document.addEventListener("visibilitychange", show);
wearTheme();
askForToken();
listen({
  status(said) {
    [status, heard] = [said, new Date()];
    history.add(said);
    show();
  },
  state: showLink,
  token: (wrong) => new Promise((given) => showToken(wrong, given)),
});

/** Draws what is known, unless nobody sees it. */
function show() {
  if (status === null || document.hidden) return;
  put(at("board"), "hidden", false);
  say(at("open"), open());
  list(at("facts"), facts(status), ([name]) => name, fact);
  list(at("notices"), notices(status), ({ key }) => key, notice);
  chart.show(history);
  showRates(history);
  showUpstreams(at("upstreams"), status.upstreams, ask);
  showEnds(at("ends").tBodies[0], history);
  showTroubles(at("troubles").tBodies[0], history);
}

/** How many connections are open, as a text. */
const open = () => count(Object.values(history.moments.at(-1).open).reduce((sum, number) => sum + number, 0));

const STATES = { ready: "serving", drained: "drained", handing_over: "handing over", stopping: "stopping" };

function facts({ process, listeners, client_connections: clients }) {
  const { reloads, last_reload: last } = process;
  const refused = reloads.refused ? `, ${reloads.refused} refused` : "";
  const reload = last ? `, last ${clock(new Date(last.at))}: ${last.result}` : "";
  return [
    ["State", STATES[process.state] ?? process.state],
    ["Version", process.version],
    ["Up for", span(process.uptime_seconds)],
    ["Clients’ connections", count(clients)],
    ["Configuration", `number ${1 + (reloads.ok ?? 0)}${refused}${reload}`],
    ["Relays taken, given", `${count(process.relays_taken)}, ${count(process.relays_given)}`],
    ["Listens on", listeners.map(({ address, tls }) => address + (tls ? " (TLS)" : "")).join(", ")],
  ];
}

function fact([name]) {
  const value = element("dd");
  return { root: element("div", {}, element("dt", {}, name), value), show: ([, text]) => say(value, text) };
}

/** What an operator should know at once, worst first. */
function notices({ process, upstreams, findings, drains }) {
  const all = findings.map(({ kind, upstream, sentence }) => ({
    key: `finding ${upstream} ${kind}`, icon: "problem", title: `${words(kind)}: upstream ${upstream}`, text: sentence,
  }));
  for (const { name, servers, discoveries } of upstreams) {
    const down = servers.filter((it) => !it.is_up).map((it) => it.name);
    const failing = discoveries.filter((it) => it.is_failing).map((it) => it.name);
    const title = `Upstream ${name}: ${down.length} of ${several(servers.length, "server")} down`;
    if (down.length > 0) all.push({ key: `down ${name}`, icon: "problem", title, text: down.join(", ") });
    const lost = `Upstream ${name}: no good answer for a name that servers are found by`;
    if (failing.length > 0) all.push({ key: `lost ${name}`, icon: "problem", title: lost, text: failing.join(", ") });
  }
  if (process.last_reload?.result === "refused") {
    const title = "The new configuration was refused; the one before goes on";
    all.push({ key: "reload", icon: "problem", title, text: process.last_reload.error });
  }
  if (process.state === "handing_over") {
    const text = `${several(process.relays_given, "relay")} given so far.`;
    all.push({ key: "hand-over", icon: "notice", title: "The next process is taking over", text });
  }
  if (process.state === "stopping") {
    all.push({ key: "stopping", icon: "notice", title: "The process is stopping", text: "Nobody new is taken." });
  }
  // That of a server has a bar of its own.
  for (const { upstream, open, open_before: before, is_over: isOver } of drains.filter((it) => it.server === null)) {
    const title = `${upstream === null ? "The whole proxy" : `Upstream ${upstream}`} is ${isOver ? "drained" : "being drained"}`;
    const text = `${count(before)} were open when that began, ${count(open)} are now.`;
    all.push({ key: `drain ${upstream ?? ""}`, icon: "drain", title, text });
  }
  return all;
}

function notice({ icon: name }) {
  const [title, text] = [element("h3"), element("p")];
  return {
    root: element("article", { class: `notice is-${name}` }, icon(name), element("div", {}, title, text)),
    show(it) {
      say(title, it.title);
      say(text, it.text);
    },
  };
}

const LINKS = { live: "Live", stale: "No word from the proxy", gone: "The proxy is gone", token: "A token is needed" };

/** How the connection to the proxy is. Only the word is told to screen readers, and only when it changes. */
function showLink(state, detail) {
  put(at("link"), "data-state", state);
  say(at("link-word"), LINKS[state]);
  const since = heard === null ? "" : `; this is how it was at ${clock(heard)}`;
  say(at("link-detail"), state === "gone" ? `${detail}${since}` : detail);
  put(document.body, "data-link", state);
  put(at("forget"), "hidden", token() === null);
  document.title = `${state === "live" ? `${open()} open` : LINKS[state]} · Steadfast`;
}

function showToken(wrong, given) {
  showLink("token", "");
  put(at("token"), "hidden", false);
  say(at("token-wrong"), wrong);
  put(at("token-value"), "aria-invalid", wrong !== "" && "true");
  at("token-value").focus();
  at("token").onsubmit = (event) => {
    event.preventDefault();
    keepToken(at("token-value").value);
    at("token-value").value = "";
    put(at("token"), "hidden", true);
    given();
  };
}

function askForToken() {
  at("forget").addEventListener("click", () => {
    keepToken(null);
    location.reload();
  });
}

/** Light or dark as the system is, until somebody says otherwise. */
function wearTheme() {
  const [root, dark] = [document.documentElement, matchMedia("(prefers-color-scheme: dark)")];
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const wear = () => say(at("theme"), isDark() ? "Light" : "Dark");
  if (localStorage.getItem("steadfast-theme")) root.dataset.theme = localStorage.getItem("steadfast-theme");
  at("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("steadfast-theme", root.dataset.theme);
    wear();
  });
  dark.addEventListener("change", wear);
  wear();
}
