// Many real Socket.IO clients with one session each, which none of them takes up again.
// Argument: { url, network, crowds: { polling: count, upgrade: count }, messages, client }, where
// `client` names the package: socket.io-client, or socket.io-client-2 for protocol 3 of Engine.IO.
// Prints { sessions } when every session is through or broken.
"use strict";

const { url, network, crowds, messages, client } = JSON.parse(process.argv[2]);
const io = require(client);
const TRANSPORTS = { polling: ["polling"], upgrade: ["polling", "websocket"] };
process.stdin.on("end", () => process.exit()).resume();

async function session(mode, number) {
  const report = { client, mode, server: null, acknowledged: 0, pushed: 0, inOrder: true, broken: null };
  const socket = io(url, {
    transports: TRANSPORTS[mode],
    extraHeaders: { "X-Forwarded-For": `10.${network}.${number}.1` },
    withCredentials: true, // which makes this client keep cookies
    forceNew: true,
    reconnection: false,
  });
  const { engine } = socket.io;
  const broken = new Promise((_, reject) => {
    const breaks = (what, { context, description } = {}) =>
      reject(new Error(`${what}: ${context?.status ?? description ?? ""} ${context?.responseText ?? ""}`));
    socket.on("connect_error", (error) => breaks(error.message, error));
    socket.on("disconnect", (reason, details) => breaks(reason, details));
    engine.on("upgradeError", (error) => breaks(error.message, error));
  });
  const upgraded = new Promise((resolve) => engine.on("upgrade", resolve));
  const welcomed = new Promise((resolve) => socket.on("welcome", (...welcome) => resolve(welcome)));
  const pushed = new Promise((resolve) =>
    socket.on("push", (number) => {
      report.inOrder &&= number === report.pushed;
      report.pushed += 1;
      if (report.pushed === messages) resolve();
    }),
  );

  const talk = async () => {
    const [server, id] = await welcomed;
    report.server = server;
    if (socket.id !== id) throw new Error(`known as ${id} there and as ${socket.id} here`);
    for (let number = 0; number < messages; number += 1) {
      if (mode === "upgrade" && number === Math.floor(messages / 2)) await upgraded;
      await new Promise((resolve) => socket.emit("message", number, resolve));
      report.acknowledged += 1;
    }
    await pushed;
  };
  await Promise.race([talk(), broken]).catch((error) => (report.broken = error.message));
  return { ...report, transport: engine.transport.name };
}

const modes = Object.entries(crowds).flatMap(([mode, count]) => Array(count).fill(mode));
Promise.all(modes.map(session)).then((sessions) => console.log(JSON.stringify({ sessions })));
