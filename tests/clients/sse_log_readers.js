// Real EventSources that read a log (sse_log_server.js), each from its first event on. Told `until`, it
// waits until each has read that far, and reports how often each was opened and what it did not read
// once and in order. Argument: { url, readers }.
"use strict";

const readline = require("readline");
const { EventSource } = require("eventsource");

const { url, readers } = JSON.parse(process.argv[2]);

const all = Array.from({ length: readers }, () => {
  const reader = { opens: 0, last: 0, wrong: [] };
  const source = new EventSource(url);
  source.addEventListener("open", () => {
    reader.opens += 1;
    if (all.every(({ opens }) => opens > 0)) console.log(JSON.stringify({ open: true }));
  });
  source.addEventListener("error", ({ code, message }) => {
    if (source.readyState === EventSource.CLOSED) reader.wrong.push(`gave up: ${code} ${message}`);
  });
  source.addEventListener("message", ({ data, lastEventId }) => {
    const expected = reader.last + 1;
    if (data !== `${expected}\nend` || lastEventId !== String(expected)) {
      reader.wrong.push(`${JSON.stringify(data)} as ${lastEventId} in the place of ${expected}`);
    }
    reader.last = Number(lastEventId);
  });
  return reader;
});

const input = readline.createInterface({ input: process.stdin });
input.on("close", () => process.exit());
input.on("line", (line) => {
  const { until } = JSON.parse(line);
  const waiting = setInterval(() => {
    if (all.some(({ last, wrong }) => last < until && wrong.length === 0)) return;
    clearInterval(waiting);
    console.log(JSON.stringify({ report: all }));
  }, 20);
});
