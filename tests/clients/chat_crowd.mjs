// Many real Socket.IO clients of the example in conf/examples/socket-io-redis, each with the client's half
// that stands there. Argument: { client, url, crowds: { polling, websocket, upgrade }, every }: `client` is
// the path of that half, and each client says something all `every` milliseconds.
// Prints { ready } when all have begun; after the command {"stop":true} they say no more, and it prints
// { report: { said, clients } } once everybody has been shown all that was said.
import readline from "node:readline";
import { io } from "socket.io-client";

const { client, url, crowds, every } = JSON.parse(process.argv[2]);
const { join } = await import(client);
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const say = (line) => console.log(JSON.stringify(line));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function member(mode, number) {
  const report = { mode, connects: 0, shown: 0, from: {}, wrong: [] };
  const socket = io(url, { transports: TRANSPORTS[mode], forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 400 });
  socket.on("connect", () => (report.connects += 1));
  const texts = new Set();
  let chat;
  await new Promise((resolve) => {
    const show = (number, { from, text }) => {
      report.shown += 1;
      report.from[from] = (report.from[from] ?? 0) + 1;
      // Everybody is there before the first thing is said, which is number 1.
      if (number !== report.shown || texts.has(text)) report.wrong.push(`${number} as number ${report.shown}: ${text}`);
      texts.add(text);
    };
    chat = join(socket, show, resolve);
  });
  return { report, socket, chat, name: `${mode}-${number}` };
}

const modes = Object.entries(crowds).flatMap(([mode, count]) => Array(count).fill(mode));
const members = await Promise.all(modes.map(member));
say({ ready: members.length });

let stopped = false;
let said = 0;
async function talk({ chat, name }) {
  const saying = [];
  for (let number = 0; !stopped; number += 1) {
    said += 1;
    saying.push(chat.say(`${name}: ${number}`));
    await pause(every);
  }
  await Promise.all(saying);
}
const talking = members.map(talk);

readline.createInterface({ input: process.stdin }).on("line", async () => {
  stopped = true;
  await Promise.all(talking);
  const isShort = ({ report }) => report.shown < said && report.wrong.length === 0;
  while (members.some(isShort)) await pause(20);
  await pause(500); // For what comes once too often.
  say({ report: { said, clients: members.map(({ report }) => report) } });
  process.exit();
});
process.stdin.on("end", () => process.exit());
