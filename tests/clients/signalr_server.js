// One SignalR server of a cluster, as ASP.NET Core behaves on the wire: it negotiates, speaks the
// JSON hub protocol over all three transports, and keeps its connections to itself. Answers and
// pushes. There is no real one without .NET.
// Argument: { name, negotiateVersion }, where version 0 has one id for all, and version 1 a secret
// token beside it. Prints its port, and every request that it refuses.
//
// https://github.com/dotnet/aspnetcore/tree/main/src/SignalR/docs/specs
"use strict";

const { randomUUID } = require("node:crypto");
const http = require("node:http");
const { WebSocketServer } = require("ws");

const { name, negotiateVersion = 1 } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const RECORD_SEPARATOR = "\x1e";
const TRANSPORTS = ["WebSockets", "ServerSentEvents", "LongPolling"];
const INVOCATION = 1;
const COMPLETION = 3;
const connections = new Map();

class Connection {
  constructor() {
    this.hasShakenHands = false;
    this.hasPolled = false;
    this.outgoing = "";
    // Takes what is outgoing, once there is a transport that can.
    this.take = null;
  }

  receive(text) {
    const records = text.split(RECORD_SEPARATOR).slice(0, -1);
    records.map((record) => JSON.parse(record)).forEach((message) => this.answer(message));
  }

  answer(message) {
    if (!this.hasShakenHands) {
      this.hasShakenHands = true;
      this.send({});
    } else if (message.type === INVOCATION) {
      this.send({ type: INVOCATION, target: "push", arguments: message.arguments });
      this.send({ type: COMPLETION, invocationId: message.invocationId, result: name });
    }
  }

  send(message) {
    this.outgoing += JSON.stringify(message) + RECORD_SEPARATOR;
    this.flush();
  }

  flush() {
    if (this.take === null || this.outgoing === "") return;
    const { take, outgoing } = this;
    this.outgoing = "";
    take(outgoing);
  }

  by(take) {
    this.take = take;
    this.flush();
  }
}

function negotiate(response) {
  const id = randomUUID();
  const token = negotiateVersion === 0 ? id : randomUUID();
  connections.set(token, new Connection());
  const ids = negotiateVersion === 0 ? { connectionId: id } : { connectionId: id, connectionToken: token };
  const availableTransports = TRANSPORTS.map((transport) => ({ transport, transferFormats: ["Text"] }));
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ negotiateVersion, ...ids, availableTransports }));
}

function events(connection, response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache,no-store" });
  response.write(":\r\n");
  connection.by((text) => response.write(`data: ${text}\r\n\r\n`));
}

// The first poll only opens the connection; every other waits for something to take.
function poll(connection, response) {
  response.setHeader("Content-Type", "text/plain");
  if (!connection.hasPolled) {
    connection.hasPolled = true;
    response.end();
    return;
  }
  connection.by((text) => {
    connection.take = null;
    response.end(text);
  });
}

async function post(connection, request, response) {
  let text = "";
  for await (const piece of request.setEncoding("utf8")) text += piece;
  response.writeHead(200, { "Content-Type": "text/plain" }).end();
  connection.receive(text);
}

// The connection that a request is for; refuses it when there is none.
function connectionOf(request, refuse) {
  const id = new URL(request.url, "http://server").searchParams.get("id");
  const connection = connections.get(id);
  if (connection === undefined) {
    say({ refused: `${request.method} for an unknown connection` });
    refuse(id === null ? [400, "Connection ID required"] : [404, "No Connection with that ID"]);
  }
  return connection;
}

const server = http.createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
  if (request.method === "POST" && request.url.includes("/negotiate")) return negotiate(response);
  const connection = connectionOf(request, ([status, text]) => {
    response.writeHead(status, { "Content-Type": "text/plain" }).end(text);
  });
  if (connection === undefined) return;
  if (request.method === "POST") post(connection, request, response);
  else if (request.method === "DELETE") response.writeHead(202).end(); // Its last words may still be under way.
  else if (request.headers.accept === "text/event-stream") events(connection, response);
  else poll(connection, response);
});

const webSockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  const connection = connectionOf(request, ([status, text]) => {
    socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`);
  });
  if (connection === undefined) return;
  webSockets.handleUpgrade(request, socket, head, (webSocket) => {
    webSocket.on("message", (data) => connection.receive(data.toString()));
    connection.by((text) => webSocket.send(text));
  });
});

server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
