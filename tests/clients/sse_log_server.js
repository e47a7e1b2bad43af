// A server of one log that only grows, the same at every server that is given the same beginning:
// event n is there from `start` + n * `every` ms on. A stream begins behind its Last-Event-ID, or with
// event 1, and each event comes in two pieces with a pause between. Argument: { port, start, every }.
"use strict";

const http = require("http");

const { port, start, every } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

const newest = () => Math.floor((Date.now() - start) / every);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const server = http.createServer(async (request, response) => {
  let next = Number(request.headers["last-event-id"] ?? 0) + 1;
  let isOpen = true;
  request.on("close", () => (isOpen = false));
  response.on("close", () => (isOpen = false));
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.flushHeaders();
  while (isOpen) {
    // Between events there is a pause however late this is: who is killed is not always within one.
    await pause(5);
    if (next > newest()) continue;
    // What a client has missed comes at once.
    let missed = "";
    for (; next < newest(); next += 1) missed += `id: ${next}\ndata: ${next}\ndata: end\n\n`;
    response.write(`${missed}id: ${next}\ndata: ${next}\n`);
    await pause(every / 5);
    response.write("data: end\n\n");
    next += 1;
  }
});
server.listen(port, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
