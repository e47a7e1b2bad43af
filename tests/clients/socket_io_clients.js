// Many real Socket.IO clients in one process, each with an address of its own.
// Argument: { url, mode: "polling" | "upgrade" | "websocket", network, count, messages }.
// Prints { talked } when every client has sent its messages and received its pushes. Told
// { without: name }, waits until every client is on another server than that, lets all talk again
// and prints { settled }.
"use strict";

const readline = require("node:readline");
const { io } = require("socket.io-client");

const { url, mode, network, count, messages } = JSON.parse(process.argv[2]);
const TRANSPORTS = { polling: ["polling"], upgrade: ["polling", "websocket"], websocket: ["websocket"] };
const say = (line) => console.log(JSON.stringify(line));

class Client {
  constructor(number) {
    this.server = null;
    this.servers = [];
    this.disconnects = 0;
    this.errors = [];
    this.acknowledged = 0;
    this.pushed = [];
    this.waiting = [];
    this.socket = io(url, {
      transports: TRANSPORTS[mode],
      extraHeaders: { "X-Forwarded-For": `10.${network}.${Math.floor(number / 200)}.${1 + (number % 200)}` },
      forceNew: true,
      reconnectionDelay: 100,
      reconnectionDelayMax: 400,
    });
    this.socket.on("welcome", (server) => {
      this.server = server;
      this.servers.push(server);
      this.check();
    });
    this.socket.on("push", (number) => {
      this.pushed.push(number);
      this.check();
    });
    this.socket.on("disconnect", () => {
      this.server = null;
      this.disconnects += 1;
    });
    this.socket.on("connect_error", ({ message, context }) => {
      this.errors.push(`${message} ${context?.status ?? ""} ${context?.responseText ?? ""}`);
    });
    this.socket.io.on("open", () => this.socket.io.engine.on("upgrade", () => this.check()));
  }

  get transport() {
    return this.socket.io.engine?.transport.name;
  }

  // Resolves as soon as a condition holds; it is looked at whenever something has happened.
  until(condition) {
    return new Promise((resolve) => {
      this.waiting.push({ condition, resolve });
      this.check();
    });
  }

  check() {
    const due = this.waiting.filter(({ condition }) => condition());
    this.waiting = this.waiting.filter((waiter) => !due.includes(waiter));
    due.forEach(({ resolve }) => resolve());
  }

  async talk() {
    const expected = this.pushed.length + messages;
    const first = this.pushed.length;
    for (let number = first; number < expected; number += 1) {
      if (mode === "upgrade" && number === first + Math.floor(messages / 2)) {
        await this.until(() => this.transport === "websocket");
      }
      await this.socket.emitWithAck("message", number);
      this.acknowledged += 1;
    }
    await this.until(() => this.pushed.length >= expected);
  }

  report() {
    const { server, servers, transport, disconnects, errors, acknowledged, pushed } = this;
    const inOrder = pushed.every((number, place) => number === place);
    return { server, servers, transport, disconnects, errors, acknowledged, pushed: pushed.length, inOrder };
  }
}

const clients = Array.from({ length: count }, (_, number) => new Client(number));
const everyone = (action) => Promise.all(clients.map(action));

async function main() {
  await everyone((client) => client.until(() => client.server !== null));
  await everyone((client) => client.talk());
  say({ talked: clients.map((client) => client.report()) });
}

const commands = readline.createInterface({ input: process.stdin });
commands.on("line", async (line) => {
  const { without } = JSON.parse(line);
  await everyone((client) => client.until(() => client.server !== null && client.server !== without));
  await everyone((client) => client.talk());
  say({ settled: clients.map((client) => client.report()) });
});
commands.on("close", () => process.exit());

main();
