// A page for browsers that opens an event stream and a WebSocket and tells what came of both. Each
// says something, is silent for a while, and says something else. Other clients may use both as well;
// the stream at /events?ends is over then.
// Argument: { silence } in milliseconds. Prints its port, and { report } when the page has told.
"use strict";

const http = require("node:http");
const { WebSocketServer } = require("ws");

const { silence } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const page = `<!doctype html><title>A page that stays</title><script>
  const report = { opened: 0, events: [], messages: [], closed: 0 };
  const tell = () => {
    if (report.events.length < 2 || report.messages.length < 2) return;
    fetch("/report", { method: "POST", body: JSON.stringify(report) });
  };
  const stream = new EventSource("/events");
  stream.onopen = () => (report.opened += 1);
  stream.onmessage = ({ data }) => { report.events.push(data); tell(); };
  const socket = new WebSocket("ws://" + location.host + "/ws");
  socket.onopen = () => socket.send("first");
  socket.onmessage = ({ data }) => { report.messages.push(data); tell(); };
  socket.onclose = () => (report.closed += 1);
</script>`;

const server = http.createServer((request, response) => {
  switch (request.url) {
    case "/":
      return response.setHeader("Content-Type", "text/html").end(page);
    case "/events":
    case "/events?ends":
      response.writeHead(200, { "Content-Type": "text/event-stream" }).write("data: first\n\n");
      return void setTimeout(() => {
        response.write("data: second\n\n");
        if (request.url === "/events?ends") response.end();
      }, silence);
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
