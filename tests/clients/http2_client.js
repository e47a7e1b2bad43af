// One connection of HTTP/2 with many event streams and WebSockets (RFC 8441) on it, those by the
// package ws. Argument: { url, streams, sockets }. Prints { settings }, and when every one of them
// has said "first" and "second", { report: { streams, sockets, comments } }: how many did, and how
// many streams had a comment meanwhile. Told { leave: true }, closes all of it and prints { left }.
"use strict";

const http2 = require("node:http2");
const readline = require("node:readline");
const WebSocket = require("ws");

const { url, streams, sockets } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));

const report = { streams: 0, sockets: 0, comments: 0 };
const count = (what) => {
  report[what] += 1;
  if (report.streams === streams && report.sockets === sockets) say({ report });
};

const session = http2.connect(url);
session.on("error", ({ message }) => say({ failed: message }));
session.on("close", () => say({ left: true }));
session.on("remoteSettings", ({ enableConnectProtocol, maxConcurrentStreams }) => {
  say({ settings: { enableConnectProtocol, maxConcurrentStreams } });
  for (let at = 0; at < streams; at += 1) openStream();
  for (let at = 0; at < sockets; at += 1) openSocket();
});

const open = [];
const request = (fields, options) => {
  const stream = session.request(fields, options);
  stream.on("error", ({ message }) => say({ failed: message }));
  open.push(stream);
  return stream;
};

function openStream() {
  let text = "";
  const stream = request({ ":path": "/events", accept: "text/event-stream" });
  stream.setEncoding("utf8").on("data", (data) => {
    text += data;
    if (!text.endsWith("data: second\n\n")) return;
    if (text.includes("\n:keepalive\n")) report.comments += 1;
    if (text.replaceAll(":keepalive\n", "") === "data: first\n\ndata: second\n\n") count("streams");
  });
}

function openSocket() {
  const fields = { ":method": "CONNECT", ":protocol": "websocket", ":path": "/ws", "sec-websocket-version": "13" };
  const stream = request(fields, { endStream: false });
  stream.on("response", ({ ":status": status }) => {
    if (status !== 200) return say({ failed: status });
    // The package makes handshakes of HTTP/1.1 alone; behind the handshake all are the same.
    const socket = new WebSocket(null, undefined, { autoPong: true });
    socket._isServer = false;
    socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 0 });
    const messages = [];
    socket.on("error", ({ message }) => say({ failed: message }));
    socket.on("message", (message) => {
      messages.push(message.toString());
      if (messages.join() === "first,second") count("sockets");
    });
    socket.send("first");
  });
}

const commands = readline.createInterface({ input: process.stdin });
commands.on("line", () => {
  for (const stream of open) stream.close(http2.constants.NGHTTP2_CANCEL);
  session.close();
});
commands.on("close", () => process.exit());
