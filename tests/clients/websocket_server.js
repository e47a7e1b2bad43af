// A WebSocket server of the package ws: echoes every message, compressed if the client can, and
// sends each client a ping of its own. Prints { port }, then for each client { ponged: text } for
// every pong, and { left: { code, reason } }.
"use strict";

const { WebSocketServer } = require("ws");

const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 } });
server.on("listening", () => say({ port: server.address().port }));
server.on("connection", (client) => {
  client.on("message", (data, isBinary) => client.send(data, { binary: isBinary }));
  client.on("pong", (data) => say({ ponged: data.toString() }));
  client.on("error", ({ message }) => say({ failed: message }));
  client.on("close", (code, reason) => say({ left: { code, reason: reason.toString() } }));
  client.ping("of the server");
});
