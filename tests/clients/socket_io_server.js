// One Socket.IO server of a cluster, for clients of versions 2 to 4. Says who it is and under which
// id it knows the client, answers and pushes.
// Argument: { name, cert, key }; with the last two, which are files, it speaks TLS. Prints its port, and every request that it refuses.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { Server } = require("socket.io");

const { name, cert, key } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

// Longer than any proxy keeps a connection that it may use again: Node's five seconds are over just
// when a busy machine sends the next request.
const keepAliveTimeout = 120_000;
const server = cert
  ? https.createServer({ keepAliveTimeout, cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : http.createServer({ keepAliveTimeout });
const io = new Server(server, { cookie: true, allowEIO3: true });

// "Session ID unknown" among them: the answer to a request that went to the wrong server.
io.engine.on("connection_error", ({ code, message }) => say({ refused: `${code}: ${message}` }));

io.on("connection", (socket) => {
  socket.emit("welcome", name, socket.id);
  socket.on("message", (number, acknowledge) => {
    socket.emit("push", number);
    acknowledge(name);
  });
});

server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
