// Many real MCP clients (Streamable HTTP) with one session each: it is initialized, lists the
// server's tools, calls one of them again and again, hears notifications beside, and is deleted.
// Argument: { url, network, count, messages }. Prints { sessions } when every session is through or
// broken.
"use strict";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { LoggingMessageNotificationSchema } = require("@modelcontextprotocol/sdk/types.js");

const { url, network, count, messages } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

async function session(_, number) {
  const report = { client: "mcp", server: null, acknowledged: 0, pushed: 0, inOrder: true, broken: null };
  const servers = new Set();
  const client = new Client({ name: `client-${number}`, version: "1.0.0" });
  let listens;
  const listening = new Promise((resolve) => (listens = resolve));
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { "X-Forwarded-For": `10.${network}.${number}.1` } },
    // Nothing else tells when the stream of notifications is open.
    fetch: async (target, init) => {
      const response = await fetch(target, init);
      if (init.method === "GET" && response.ok) listens();
      return response;
    },
  });
  const broken = new Promise((_, reject) => (client.onerror = reject));
  const pushed = new Promise((resolve) =>
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
      servers.add(params.data.server);
      report.inOrder &&= params.data.number === report.pushed;
      report.pushed += 1;
      if (report.pushed === messages) resolve();
    }),
  );

  const talk = async () => {
    await client.connect(transport);
    report.server = client.getServerVersion().name;
    servers.add(report.server);
    const { tools } = await client.listTools();
    if (tools[0]?.name !== "whoami") throw new Error(`${tools.length} tools`);
    await listening;
    for (let call = 0; call < messages; call += 1) {
      const { content } = await client.callTool({ name: "whoami" });
      servers.add(content[0].text);
      report.acknowledged += 1;
    }
    await pushed;
    await transport.terminateSession();
    if (servers.size > 1) throw new Error(`one session at ${[...servers]}`);
  };
  await Promise.race([talk(), broken]).catch((error) => (report.broken = error.message));
  await client.close();
  return report;
}

Promise.all(Array(count).fill().map(session)).then((sessions) => console.log(JSON.stringify({ sessions })));
