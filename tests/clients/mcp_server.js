// One MCP server of a cluster (Streamable HTTP), which keeps its sessions to itself. Its one tool
// says who it is, and pushes the same with a number.
// Argument: { name }. Prints its port, and every request for a session that it does not know.
"use strict";

const { randomUUID } = require("node:crypto");
const http = require("node:http");
const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");

const { name } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const sessions = new Map();

// What a request gets that has no session: with its first message it opens one.
async function opening() {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  const server = new McpServer({ name, version: "1.0.0" }, { capabilities: { logging: {} } });
  let calls = 0;
  server.registerTool("whoami", { description: "Says which server this is" }, async () => {
    // Goes to the stream of notifications, for it does not say which request it belongs to.
    await server.sendLoggingMessage({ level: "info", data: { server: name, number: calls++ } });
    return { content: [{ type: "text", text: name }] };
  });
  await server.connect(transport);
  return transport;
}

function refuse(request, response) {
  say({ refused: `${request.method} for an unknown session` });
  const error = { code: -32001, message: "Session not found" };
  response.writeHead(404, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
}

const server = http.createServer({ keepAliveTimeout: 120_000 }, async (request, response) => {
  const id = request.headers["mcp-session-id"];
  const transport = id === undefined ? await opening() : sessions.get(id);
  if (transport === undefined) return refuse(request, response);
  await transport.handleRequest(request, response);
});
server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
