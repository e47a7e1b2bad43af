// A WebSocket client of the package ws. Argument: { url, compresses, answers }; with answers: false
// it never answers a ping. Prints { open }, for every ping { pinged: hexadecimal }, and at the end
// { closed: { code, reason } }. Told { say: [text, ...] }, sends all of it, each message in three
// fragments, and prints { echoed: [text, ...] } when all has come back.
"use strict";

const readline = require("node:readline");
const WebSocket = require("ws");

const { url, compresses, answers } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));

const client = new WebSocket(url, { perMessageDeflate: compresses && { threshold: 0 }, autoPong: answers });
let echoed = [];
let expected = 0;
client.on("open", () => say({ open: { extensions: client.extensions } }));
client.on("ping", (data) => say({ pinged: data.toString("hex") }));
client.on("error", ({ message }) => say({ failed: message }));
client.on("close", (code, reason) => say({ closed: { code, reason: reason.toString() } }));
client.on("message", (data) => {
  echoed.push(data.toString());
  if (echoed.length === expected) {
    say({ echoed });
    echoed = [];
  }
});

const commands = readline.createInterface({ input: process.stdin });
commands.on("line", (line) => {
  const texts = JSON.parse(line).say;
  expected = texts.length;
  for (const text of texts) {
    const third = Math.ceil(text.length / 3);
    client.send(text.slice(0, third), { fin: false });
    client.send(text.slice(third, 2 * third), { fin: false });
    client.send(text.slice(2 * third), { fin: true });
  }
});
commands.on("close", () => process.exit());
