// A page for browsers that opens many event streams and WebSockets to one host at once and tells when
// each of them has said something, been silent for a while, and said something else.
// Argument: { streams, sockets, silence }, the last in milliseconds. Prints its port, and { report }
// when the page has told.
"use strict";

const http = require("node:http");
const { WebSocketServer } = require("ws");

const { streams, sockets, silence } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const page = `<!doctype html><title>A page with many connections</title><script>
  const report = { protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol };
  Object.assign(report, { streams: 0, sockets: 0, errors: 0, closed: 0 });
  const count = (what) => {
    report[what] += 1;
    if (report.streams < ${streams} || report.sockets < ${sockets}) return;
    fetch("/report", { method: "POST", body: JSON.stringify(report) });
  };
  for (let at = 0; at < ${streams}; at += 1) {
    const stream = new EventSource("/events?" + at);
    stream.onmessage = ({ data }) => data === "second" && count("streams");
    stream.onerror = () => (report.errors += 1);
  }
  for (let at = 0; at < ${sockets}; at += 1) {
    const socket = new WebSocket("wss://" + location.host + "/ws?" + at);
    socket.onopen = () => socket.send("first");
    socket.onmessage = ({ data }) => data === "second" && count("sockets");
    socket.onclose = () => (report.closed += 1);
  }
</script>`;

const server = http.createServer((request, response) => {
  switch (request.url.split("?")[0]) {
    case "/":
      return response.setHeader("Content-Type", "text/html").end(page);
    case "/events":
      response.writeHead(200, { "Content-Type": "text/event-stream" }).write("data: first\n\n");
      return void setTimeout(() => response.write("data: second\n\n"), silence);
    case "/report":
      return void request.setEncoding("utf8").on("data", (body) => {
        say({ report: JSON.parse(body) });
        response.end();
      });
    default:
      return response.writeHead(404).end();
  }
});

new WebSocketServer({ server }).on("connection", (socket) => {
  socket.on("message", (message) => {
    socket.send(message.toString());
    setTimeout(() => socket.send("second"), silence);
  });
});

server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
