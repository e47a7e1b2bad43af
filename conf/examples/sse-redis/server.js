// One server of event streams out of several: what is posted to any of them reaches every stream of all of
// them, once and in order, even a client that was away for a while.
//
// A stream of Redis is the log, whose numbers are the ids of the events; Pub/Sub only rings the bell when
// there is something new in it. So it does no harm that Pub/Sub loses what nobody listens to.
//
//     GET  /events     the event stream; goes on behind Last-Event-ID
//     POST /messages   its body is sent to everybody; answers with the number that it got
//
// Environment: PORT, REDIS_URL.
"use strict";

const http = require("node:http");
const { text } = require("node:stream/consumers");
const { createClient } = require("redis");

const { PORT = "3000", REDIS_URL = "redis://localhost:6379" } = process.env;

const LOG = "events:log";
const LOG_LENGTH = 100_000; // Who was away for longer than that misses the beginning.
const BELL = "events:bell";
const PAGE = 1000;
const TICK_MS = 5000;
const BACKLOG_BYTES = 1 << 20; // For a client that does not read; it comes back for the rest.

const numberOf = (id) => Number(id.slice("0-".length));
const shown = ({ id, message }) => `id: ${numberOf(id)}\ndata: ${message.text.replace(/\r\n|\r|\n/g, "\ndata: ")}\n\n`;

async function main() {
  const redis = createClient({ url: REDIS_URL });
  const subscriber = redis.duplicate();
  // Without listeners an error would end the process; the client connects again by itself.
  for (const client of [redis, subscriber]) client.on("error", (error) => console.error(`redis: ${error.message}`));
  await Promise.all([redis.connect(), subscriber.connect()]);

  const [newest] = await redis.xRevRange(LOG, "+", "-", { COUNT: 1 });
  let position = newest ? numberOf(newest.id) : 0; // Of the log, up to which everybody here has everything.
  const audience = new Map(); // Each response, and the number that it begins behind.
  const send = (response, entries) => {
    response.write(entries.map(shown).join(""));
    if (response.writableLength > BACKLOG_BYTES) response.destroy();
  };

  let isReading = false;
  let hasRung = false;
  // Sends what is new in the log to everybody, one page behind the other.
  async function read() {
    hasRung = true;
    if (isReading) return;
    isReading = true;
    try {
      while (hasRung) {
        hasRung = false;
        const entries = await redis.xRange(LOG, `(0-${position}`, "+", { COUNT: PAGE });
        if (entries.length === 0) continue;
        hasRung = true; // There may be another page.
        position = numberOf(entries.at(-1).id);
        for (const [response, behind] of audience) {
          send(response, behind < numberOf(entries[0].id) ? entries : entries.filter(({ id }) => numberOf(id) > behind));
        }
      }
    } catch (error) {
      console.error(`the log cannot be read: ${error.message}`); // The next bell or tick tries again.
    } finally {
      isReading = false;
    }
  }
  await subscriber.subscribe(BELL, read);
  // A bell that rang while the subscriber was away.
  setInterval(read, TICK_MS);

  async function stream(request, response) {
    const last = Number(request.headers["last-event-id"] ?? NaN);
    let behind = Number.isSafeInteger(last) ? last : position;
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    // Who is new knows from the start what it goes on behind, should it lose its connection before an event.
    if (behind === position) response.write(`event: begin\nid: ${position}\ndata: ${position}\n\n`);
    response.flushHeaders();
    // What it has missed, up to where everybody is, who may be further by the time that it is read.
    while (behind < position && !response.destroyed) {
      const entries = await redis.xRange(LOG, `(0-${behind}`, `0-${position}`, { COUNT: PAGE });
      if (entries.length === 0) break; // It was away for too long, and the log begins later.
      behind = numberOf(entries.at(-1).id);
      send(response, entries);
    }
    // From a server that is ahead of this one it may have more than everybody here.
    audience.set(response, behind);
    response.on("close", () => audience.delete(response));
  }

  async function post(request, response) {
    const id = await redis.xAdd(LOG, "0-*", { text: await text(request) }, {
      TRIM: { strategy: "MAXLEN", strategyModifier: "~", threshold: LOG_LENGTH },
    });
    await redis.publish(BELL, "");
    response.writeHead(201, { "Content-Type": "text/plain" }).end(`${numberOf(id)}\n`);
  }

  async function serve(request, response) {
    const { pathname } = new URL(request.url, "http://server");
    if (request.method === "GET" && pathname === "/events") await stream(request, response);
    else if (request.method === "POST" && pathname === "/messages") await post(request, response);
    // For Steadfast's health_check: without Redis this server is of no use to anybody.
    else response.writeHead(pathname !== "/healthz" ? 404 : redis.isReady ? 200 : 503).end();
  }
  const server = http.createServer((request, response) => {
    serve(request, response).catch((error) => {
      console.error(`${request.method} ${request.url}: ${error.message}`);
      if (response.headersSent) response.destroy(); // It comes back.
      else response.writeHead(503).end();
    });
  });
  // Longer than any proxy keeps an idle connection, so that none is closed just when it is used again.
  server.keepAliveTimeout = 120_000;
  server.listen(Number(PORT), () => console.log(JSON.stringify({ port: server.address().port })));
  // Drain it at the proxy first; whoever is here still comes back to another one.
  process.once("SIGTERM", () => process.exit());
}
main();
