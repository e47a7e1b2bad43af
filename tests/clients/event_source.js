// Follows event streams with the real EventSource, each until it ends for the first time, and
// reports what it dispatched. Argument: { urls: [...] }.
"use strict";

const { EventSource } = require("eventsource");

const { urls } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

// EventSource dispatches a named event only to those who ask for the name.
const NAMES = ["message", "update", "end"];

function follow(url) {
  return new Promise((resolve) => {
    const events = [];
    const source = new EventSource(url);
    for (const name of NAMES) {
      source.addEventListener(name, ({ type, data, lastEventId }) => events.push({ type, data, lastEventId }));
    }
    // It would connect again; what it has by now is what counts.
    source.addEventListener("error", () => {
      source.close();
      resolve(events);
    });
  });
}

Promise.all(urls.map(follow)).then((events) => console.log(JSON.stringify({ events })));
