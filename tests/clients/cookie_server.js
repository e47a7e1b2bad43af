// One server of a cluster that sets a cookie and keeps to itself what belongs to it: express with
// express-session in memory. Opens a session, gives it another id when somebody logs in, and counts.
// Argument: { name }. Prints its port, and every request whose session it does not know.
"use strict";

const express = require("express");
const session = require("express-session");

const { name } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
process.stdin.on("end", () => process.exit()).resume();

const app = express();
app.use(session({ secret: "of the tests", resave: false, saveUninitialized: false }));

app.get("/", (request, response) => {
  request.session.count = 0;
  response.json({ server: name });
});

app.use((request, response, next) => {
  if (request.session.count !== undefined) return next();
  say({ refused: `${request.method} ${request.path} for an unknown session` });
  response.status(401).json({ server: name });
});

app.post("/login", (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.count = 0;
    response.json({ server: name });
  });
});

app.get("/count", (request, response) => {
  request.session.count += 1;
  response.json({ server: name, count: request.session.count });
});

const server = app.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
server.keepAliveTimeout = 120_000;
