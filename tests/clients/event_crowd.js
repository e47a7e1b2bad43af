// Real EventSources of the example in conf/examples/sse-redis. Argument: { urls }: one reader for each.
// Prints { open } when all have been told where they begin. Told { until }, it waits until each has read
// that far, and prints { readers }: how often each was opened, and what it did not get once and in order.
"use strict";

const readline = require("node:readline");
const { EventSource } = require("eventsource");

const { urls } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));

const readers = urls.map((url) => {
  const reader = { opens: 0, last: null, wrong: [] };
  const source = new EventSource(url);
  source.addEventListener("open", () => (reader.opens += 1));
  source.addEventListener("begin", ({ lastEventId }) => {
    if (reader.last === null) {
      reader.last = Number(lastEventId);
      if (readers.every(({ last }) => last !== null)) say({ open: readers.length });
    }
  });
  source.addEventListener("error", ({ code, message }) => {
    if (source.readyState === EventSource.CLOSED) reader.wrong.push(`gave up: ${code} ${message}`);
  });
  source.addEventListener("message", ({ data, lastEventId }) => {
    reader.last += 1;
    const { number, lines } = JSON.parse(data.split("\n")[0]);
    const isWhole = lines === data.split("\n").length;
    if (Number(lastEventId) !== reader.last || !isWhole) reader.wrong.push(`${lastEventId} for ${reader.last}: ${number}`);
  });
  return reader;
});

const input = readline.createInterface({ input: process.stdin });
input.on("close", () => process.exit());
input.on("line", async (line) => {
  const { until } = JSON.parse(line);
  const isShort = ({ last, wrong }) => last < until && wrong.length === 0;
  while (readers.some(isShort)) await new Promise((resolve) => setTimeout(resolve, 20));
  say({ readers });
});
