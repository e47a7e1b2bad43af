// Many real SignalR clients with one connection each, which none of them takes up again.
// Argument: { url, network, crowds: { WebSockets, ServerSentEvents, LongPolling }, messages }, with
// the number of clients for each transport. Prints { sessions } when every connection is through or
// broken.
"use strict";

const { HttpTransportType, HubConnectionBuilder, LogLevel } = require("@microsoft/signalr");

const { url, network, crowds, messages } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

async function session(mode, number) {
  const report = { client: "signalr", mode, server: null, acknowledged: 0, pushed: 0, inOrder: true, broken: null };
  const servers = new Set();
  const headers = { "X-Forwarded-For": `10.${network}.${number}.1` };
  const connection = new HubConnectionBuilder()
    .withUrl(url, { transport: HttpTransportType[mode], headers })
    .configureLogging(LogLevel.None)
    .build();
  const broken = new Promise((_, reject) => connection.onclose((error) => reject(error ?? new Error("closed"))));
  const pushed = new Promise((resolve) =>
    connection.on("push", (number) => {
      report.inOrder &&= number === report.pushed;
      report.pushed += 1;
      if (report.pushed === messages) resolve();
    }),
  );

  const talk = async () => {
    await connection.start();
    for (let number = 0; number < messages; number += 1) {
      servers.add(await connection.invoke("message", number));
      report.acknowledged += 1;
    }
    await pushed;
    [report.server] = servers;
    if (servers.size > 1) throw new Error(`one connection at ${[...servers]}`);
  };
  await Promise.race([talk(), broken]).catch((error) => (report.broken = error.message));
  await connection.stop();
  return report;
}

const modes = Object.entries(crowds).flatMap(([mode, count]) => Array(count).fill(mode));
Promise.all(modes.map(session)).then((sessions) => console.log(JSON.stringify({ sessions })));
