// Follows one event stream with the real EventSource, and reports for each time that it ends how
// many milliseconds pass until it is open again. Argument: { url }.
"use strict";

const { EventSource } = require("eventsource");

const { url } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

let endedAt;
const source = new EventSource(url);
source.addEventListener("open", () => {
  console.log(JSON.stringify(endedAt ? { returned: Date.now() - endedAt } : { opened: true }));
});
source.addEventListener("message", ({ data }) => console.log(JSON.stringify({ data })));
source.addEventListener("error", () => {
  endedAt = Date.now();
  console.log(JSON.stringify({ ended: source.readyState }));
});
