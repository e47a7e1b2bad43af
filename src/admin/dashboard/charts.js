// Two charts: what is open by kind, stacked; and a line for each rate. Drawn in boxes that are stretched, so their
// words stand beside them as text.

import { KINDS, count, element, list, measured, put, say, shape, span } from "./elements.js";
import { RATES, SPAN } from "./history.js";

const [WIDTH, HEIGHT] = [1000, 300];
/** Seconds without a word behind which a line is broken. */
const GAP = 5;
/** How much of the past is shown: as little as holds all that is known. */
const WINDOWS = [60, 120, 300, SPAN];

/** What is open over time. */
export function openChart() {
  const areas = KINDS.map(([kind]) => shape("path", { class: `area of-${kind}` }));
  const rules = [0, 0.5, 1].map((part) => shape("path", { class: "rule", d: `M0 ${HEIGHT * part}H${WIDTH}` }));
  const plot = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  plot.append(...areas, ...rules);
  const heights = [element("span"), element("span"), element("span", {}, "0")];
  const times = [element("span"), element("span"), element("span", {}, "now")];
  const numbers = KINDS.map(() => element("b"));
  const legend = element("ul", { class: "legend" }, ...KINDS.map(([kind, , names], at) =>
    element("li", {}, element("span", { class: `swatch of-${kind}`, "aria-hidden": "true" }), `${names} `, numbers[at])));
  const table = minutesTable();
  const root = element("div", { class: "chart" },
    element("div", { class: "heights", "aria-hidden": "true" }, ...heights), plot,
    element("div", { class: "times", "aria-hidden": "true" }, ...times), legend, table.root);

  return {
    root,
    show({ moments }) {
      const last = moments.at(-1);
      const window = windowOf(moments);
      const top = roundUp(Math.max(...moments.map(({ open }) => total(open))));
      const x = (at) => WIDTH * (1 - (last.at - at) / window);
      const y = (number) => HEIGHT * (1 - number / top);
      KINDS.forEach((_, layer) => {
        const edge = (layers) => ({ at, open }) => `${round(x(at))} ${round(y(total(open, layers)))}`;
        const area = (run) => `M${run.map(edge(layer + 1)).join("L")}L${run.toReversed().map(edge(layer)).join("L")}Z`;
        put(areas[layer], "d", runs(moments).map(area).join(""));
      });
      [count(top), count(top / 2)].forEach((text, at) => say(heights[at], text));
      [`${span(window)} ago`, span(window / 2)].forEach((text, at) => say(times[at], text));
      KINDS.forEach(([kind], at) => say(numbers[at], count(last.open[kind] ?? 0)));
      const kinds = KINDS.map(([kind, , names]) => `${count(last.open[kind] ?? 0)} ${names}`);
      put(plot, "aria-label", `Open connections over the last ${span(window)}, by kind; now ${kinds.join(", ")}`);
      table.show(moments);
    },
  };
}

/** The same as numbers, a row for each minute. Made only while somebody looks. */
function minutesTable() {
  const heads = ["Time", ...KINDS.map(([, , names]) => names), "all"].map((name) => element("th", { scope: "col" }, name));
  const body = element("tbody");
  const rows = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  const root = element("details", {}, element("summary", {}, "As a table"), rows);
  let known = [];
  const fill = () => {
    const last = known.at(-1);
    const minutes = Array.from({ length: SPAN / 60 + 1 }, (_, minute) => minute);
    const at = (minute) => known.findLast((moment) => moment.at <= last.at - 60 * minute);
    const items = minutes.map((minute) => ({ minute, moment: at(minute) })).filter(({ moment }) => moment);
    list(body, items, ({ minute }) => minute, ({ minute }) => minuteRow(minute));
  };
  root.addEventListener("toggle", () => root.open && known.length > 0 && fill());
  return {
    root,
    show(moments) {
      known = moments;
      if (root.open) fill();
    },
  };
}

function minuteRow(minute) {
  const cells = [...KINDS, "all"].map(() => element("td"));
  const name = minute === 0 ? "now" : `${minute} min ago`;
  return {
    root: element("tr", {}, element("th", { scope: "row" }, name), ...cells),
    show({ moment }) {
      KINDS.forEach(([kind], at) => say(cells[at], count(moment.open[kind] ?? 0)));
      say(cells.at(-1), count(total(moment.open)));
    },
  };
}

/** A number with its line, for each rate. */
export function rateCharts(parent) {
  const charts = RATES.map(([name]) => {
    const [line, area] = [shape("path", { class: "line" }), shape("path", { class: "under" })];
    const plot = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    plot.append(area, line);
    const [now, most] = [element("strong"), element("span", { class: "soft" })];
    parent.append(element("div", { class: "card rate" }, element("h3", {}, name), element("p", {}, now, " /s ", most), plot));
    return { line, area, now, most };
  });
  return ({ moments }) => {
    const [last, window] = [moments.at(-1), windowOf(moments)];
    charts.forEach(({ line, area, now, most }, which) => {
      const known = moments.filter(({ rates }) => rates !== null);
      const highest = Math.max(0, ...known.map(({ rates }) => rates[which]));
      // Less than one a second is hardly anything, and looks like it.
      const top = Math.max(1, highest) * 1.06;
      const x = ({ at }) => round(WIDTH * (1 - (last.at - at) / window));
      const curve = (run) => run.map((moment) => `${x(moment)} ${round(HEIGHT * (1 - moment.rates[which] / top))}`).join("L");
      put(line, "d", runs(known).map((run) => `M${curve(run)}`).join(""));
      put(area, "d", runs(known).map((run) => `M${x(run[0])} ${HEIGHT}L${curve(run)}L${x(run.at(-1))} ${HEIGHT}Z`).join(""));
      say(now, rate(last.rates?.[which] ?? 0));
      say(most, `most ${rate(highest)}`);
    });
  };
}

const rate = (number) => (number >= 100 ? count(Math.round(number)) : measured(Math.round(number * 10) / 10));

/** All of the kinds, or of as many as lie below a layer. */
function total(open, layers = KINDS.length) {
  return KINDS.slice(0, layers).reduce((all, [kind]) => all + (open[kind] ?? 0), 0);
}

function windowOf(moments) {
  const known = moments.at(-1).at - moments[0].at;
  return WINDOWS.find((window) => known <= window) ?? SPAN;
}

/** The next number that is round, and whose half is whole. */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 2) / 2));
  const isEven = (step) => (step * power) % 2 === 0;
  return [2, 2.4, 3, 4, 5, 6, 8, 10, 12, 16, 20].filter(isEven).map((step) => step * power).find((round) => round >= number);
}

/** Moments without a gap between them. */
function runs(moments) {
  const all = [];
  for (const moment of moments) {
    const run = all.at(-1);
    if (run && moment.at - run.at(-1).at <= GAP) run.push(moment);
    else all.push([moment]);
  }
  return all;
}

const round = (number) => Math.round(number * 10) / 10;
