// Many real Socket.IO clients that come back wherever they are sent, and miss nothing.
// Argument: { url, crowds: { polling, websocket, upgrade }, every }: each sends a message all `every`
// milliseconds, again if need be until it is acknowledged, and gets news with numbers.
// Prints { connected: count } when all are; after the command {"stop":true} it sends no more, waits for
// what is under way, and prints { clients: [...] }.
"use strict";

const readline = require("node:readline");
const { io } = require("socket.io-client");

const { url, crowds, every } = JSON.parse(process.argv[2]);
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const say = (line) => console.log(JSON.stringify(line));
let stopped = false;

function wanderer(mode, number) {
  const report = {
    mode, number, connects: 0, recovered: 0, reconnectedAt: [], disconnects: [],
    sent: 0, acknowledged: 0, twice: 0, failed: 0, news: 0, gaps: 0, repeated: 0,
  };
  const socket = io(url, {
    transports: TRANSPORTS[mode],
    auth: { client: `${mode}-${number}` },
    extraHeaders: { "X-Forwarded-For": `10.77.${Math.floor(number / 250)}.${1 + (number % 250)}` },
    forceNew: true,
    reconnectionDelay: 100,
    reconnectionDelayMax: 500,
    retries: 20,
    ackTimeout: 4000,
  });
  let next = null;
  socket.on("connect", () => {
    report.connects += 1;
    if (report.connects > 1) report.reconnectedAt.push(Date.now());
    if (socket.recovered) report.recovered += 1;
  });
  socket.on("disconnect", (reason) => report.disconnects.push(reason));
  socket.on("news", (number) => {
    if (next !== null && number > next) report.gaps += number - next;
    if (next !== null && number < next) report.repeated += 1;
    next = Math.max(next ?? 0, number + 1);
    report.news += 1;
  });
  const send = () => {
    if (stopped) return;
    let times = 0;
    report.sent += 1;
    socket.emit("message", report.sent, (error) => {
      times += 1;
      if (times > 1) report.twice += 1;
      else if (error) report.failed += 1;
      else report.acknowledged += 1;
    });
  };
  const timer = setInterval(send, every);
  const isDone = () => report.acknowledged + report.failed === report.sent;
  const done = async () => {
    clearInterval(timer);
    while (!isDone()) await new Promise((resolve) => setTimeout(resolve, 20));
    socket.close();
    return report;
  };
  return { socket, done };
}

let number = 0;
const modes = Object.entries(crowds).flatMap(([mode, count]) => Array(count).fill(mode));
const clients = modes.map((mode) => wanderer(mode, number++));
Promise.all(clients.map(({ socket }) => new Promise((resolve) => socket.once("connect", resolve)))).then(() =>
  say({ connected: clients.length }),
);
readline.createInterface({ input: process.stdin }).on("line", async () => {
  stopped = true;
  const reports = await Promise.all(clients.map(({ done }) => done()));
  say({ clients: reports });
  process.exit();
});
process.stdin.on("end", () => process.exit());
