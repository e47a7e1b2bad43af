// Many clients that keep cookies, with one session each: it is opened, gets another id, and counts.
// Argument: { url, network, count, messages }. Prints { sessions } when every session is through or
// broken.
"use strict";

const fetchCookie = require("fetch-cookie");

const { url, network, count, messages } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

async function session(_, number) {
  const report = { client: "fetch-cookie", server: null, acknowledged: 0, broken: null };
  const servers = new Set();
  const fetchWithCookies = fetchCookie(fetch);
  const headers = { "X-Forwarded-For": `10.${network}.${number}.1` };

  const ask = async (method, path) => {
    const response = await fetchWithCookies(new URL(path, url), { method, headers });
    const answer = await response.json();
    servers.add(answer.server);
    if (!response.ok) throw new Error(`${response.status} for ${method} ${path}`);
    return answer;
  };
  const talk = async () => {
    await ask("GET", "/");
    await ask("POST", "/login");
    for (let number = 1; number <= messages; number += 1) {
      const { count } = await ask("GET", "/count");
      if (count !== number) throw new Error(`${count} instead of ${number}`);
      report.acknowledged += 1;
    }
    if (servers.size > 1) throw new Error(`one session at ${[...servers]}`);
  };
  await talk().catch((error) => (report.broken = error.message));
  [report.server] = servers;
  return report;
}

Promise.all(Array(count).fill().map(session)).then((sessions) => console.log(JSON.stringify({ sessions })));
