// One chat server of several: what is said at any of them reaches every client of all of them, once and
// in order, even a client that was away for a while.
//
// Two things of Redis do that together. Pub/Sub, by the adapter of Socket.IO, is quick and forgets: who is
// not there when something is said has missed it. So each message is first written to a log, a stream of
// Redis, which gives it its number; and a client that misses a number asks for it (client.mjs).
//
// Environment: PORT, REDIS_URL, NAME.
"use strict";

const http = require("node:http");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const { PORT = "3000", REDIS_URL = "redis://localhost:6379", NAME = require("node:os").hostname() } = process.env;

const LOG = "chat:log";
const LOG_LENGTH = 100_000; // Who was away for longer than that misses the beginning.
const PAGE = 1000;
const TICK_MS = 5000;
const SEEN_SECONDS = 3600; // Longer than any client tries again.

// Writes a message to the log, unless it is there: a client says it again when it got no answer. In one
// step, so that a server which dies leaves either both keys or none. "0-*" numbers 0-1, 0-2, 0-3 ...
const APPEND = `
  if not redis.call('SET', KEYS[2], '', 'NX', 'EX', ${SEEN_SECONDS}) then return nil end
  return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ${LOG_LENGTH}, '0-*', 'from', ARGV[1], 'text', ARGV[2])`;
const numberOf = (id) => Number(id.slice("0-".length));

async function main() {
  const redis = createClient({ url: REDIS_URL });
  const subscriber = redis.duplicate();
  // Without listeners an error would end the process; the client connects again by itself.
  for (const client of [redis, subscriber]) client.on("error", (error) => console.error(`redis: ${error.message}`));
  await Promise.all([redis.connect(), subscriber.connect()]);

  const server = http.createServer((request, response) => {
    // For Steadfast's health_check: without Redis this server is of no use to anybody.
    response.writeHead(request.url === "/healthz" ? (redis.isReady ? 200 : 503) : 404).end();
  });
  // Longer than any proxy keeps an idle connection, so that none is closed just when it is used again.
  server.keepAliveTimeout = 120_000;
  const io = new Server(server, { adapter: createAdapter(redis, subscriber) });

  const newest = async () => {
    const [entry] = await redis.xRevRange(LOG, "+", "-", { COUNT: 1 });
    return entry ? numberOf(entry.id) : 0;
  };
  io.on("connection", (socket) => {
    // Whom Redis fails gets no answer, and asks again.
    const on = (event, work) =>
      socket.on(event, (...values) => work(...values).catch((error) => console.error(`${event}: ${error.message}`)));
    on("say", async (key, text, done) => {
      const append = { keys: [LOG, `chat:seen:${key}`], arguments: [NAME, String(text)] };
      const id = await redis.eval(APPEND, append);
      if (id) io.emit("said", numberOf(id), { from: NAME, text });
      done();
    });
    // The log behind a number, or its newest number for somebody who is new.
    on("since", async (number, answer) => {
      if (number === null) return answer(await newest(), []);
      const entries = await redis.xRange(LOG, `(0-${Number(number)}`, "+", { COUNT: PAGE });
      answer(null, entries.map(({ id, message: { from, text } }) => [numberOf(id), { from, text }]));
    });
  });
  // Pub/Sub may lose even the last thing that was said, behind which nothing shows that it is missing.
  setInterval(async () => {
    if (redis.isReady) io.local.emit("newest", await newest().catch(() => 0));
  }, TICK_MS);

  server.listen(Number(PORT), () => console.log(JSON.stringify({ name: NAME, port: server.address().port })));
  // Drain it at the proxy first; whoever is here still is told to come back.
  process.once("SIGTERM", () => io.close(() => process.exit()));
}
main();
