// One Socket.IO server of a cluster that shares its packets through Redis, so that a client which is
// away for a moment gets what it missed at any of them (connection state recovery).
// Argument: { name, redis: "redis://...", publishes }. The one that publishes sends a number to all
// clients, again and again. Each message of a client counts once, however often it is sent. Prints its
// port, { begun: sid } for each new connection and { recovered: sid } for each that was recovered.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");
const { createClient } = require("redis");
const { createAdapter } = require("@socket.io/redis-streams-adapter");

const { name, redis, publishes } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

async function main() {
  const client = createClient({ url: redis });
  await client.connect();
  const server = http.createServer({ keepAliveTimeout: 120_000 });
  const io = new Server(server, {
    adapter: createAdapter(client, { readCount: 1000 }),
    connectionStateRecovery: { maxDisconnectionDuration: 120_000 },
  });
  io.on("connection", (socket) => {
    say(socket.recovered ? { recovered: socket.handshake.auth.client } : { begun: socket.handshake.auth.client });
    socket.on("message", async (number, acknowledge) => {
      const isNew = await client.set(`message:${socket.handshake.auth.client}:${number}`, name, { NX: true });
      if (isNew) await client.incr("messages");
      acknowledge(name);
    });
  });
  if (publishes) {
    let number = 0;
    setInterval(() => io.emit("news", number++), 50);
  }
  server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
}
main();
