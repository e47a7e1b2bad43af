//! The proxy as its users meet it: the real binary between real sockets.
//!
//! Every test starts a proxy of its own on ports that the kernel chooses.

mod harness;

// Real clients through a minute of silence: a browser, and the libraries of Node.
mod a_minute_of_silence;
// What the two sides see of each other's heads: versions, hop-by-hop fields, forwarded fields, routes.
mod heads;
// Bodies in every framing, streamed both ways at once, stopped by whoever does not read.
mod bodies;
// Requests that wait for long: taken apart, and put together again.
mod parked;
// Connections used again: keep-alive, pipelining, pools, and pooled connections gone stale.
mod connections;
// Servers that are down, found out by checks and by clients, and back again.
mod health;
// Servers behind names: who joins, who leaves, and name servers that have lost their minds.
mod discovery;
// Servers that refuse, stall, break off or talk nonsense, and clients that leave meanwhile.
mod failures;
// Clients that break the rules: no HTTP, smuggling, endless heads.
mod hostile;
// Every odd request there is: one that all hops read alike comes out, or none.
mod hardening_requests;
// Every odd response there is: what its client and the next one get.
mod hardening_responses;
// Upgraded connections: nothing lost at the switch, half-closed, slow, idle, cut.
mod websocket;
// WebSocket handshakes that a hop has damaged, and what is no such.
mod damaged;
// Pings of the proxy's between other people's frames, and what is counted there.
mod websocket_pings;
// WebSockets that the proxy ends itself, with a code.
mod websocket_closes;
// Every relay by itself: listed, ended by its id, and how old it may become.
mod relays;
// Peers that vanish without a word, in networks of their own.
mod vanishing;
// One way to every end reason there is.
mod end_reasons;
// Clients that do not read: what they cost, whom they hold up, and that they can be ended.
mod slow_readers;
// Random traffic of every kind, every byte of it compared.
mod traffic;
// TLS with clients: certificates by name, versions, certificates of theirs, who gets in and who not.
mod tls;
// TLS with servers: who they must be, and what becomes of them who are somebody else.
mod tls_servers;
// Connections that stay, on TLS on one side or on both.
mod tls_relays;
// PROXY headers from hops and to servers: whole, cut, glued, broken, from whom they may not come.
mod proxy_protocol;
// Thousands of WebSocket handshakes at once, four times.
mod storm;
// HTTP/2 from clients: requests, bodies, streams, WebSockets, many of them on one connection.
mod http2;
// The frames of HTTP/2, right and wrong, and floods of them: what reaches the server, what the client
// gets.
mod http2_frames;
// HTTP/2 of real clients.
mod http2_clients;
// Dozens of streams of a real browser on one connection.
mod browser;
// The dashboard in a real browser: true numbers, drains by button and key, tokens, hostile words, axe.
mod dashboard;
// Event streams: alive through silence, told to no cache, ended for the right reason.
mod sse;
// How event streams begin: the time to wait before returning, and a first comment.
mod sse_begins;
// Event streams that the proxy begins because their server takes its time.
mod sse_early;
// Event streams that begin while their request is still being sent.
mod sse_posts;
// The client's connection behind an event stream: used again, with what was sent meanwhile.
mod sse_reuse;
// Event streams whose server pauses at every awkward place, in every framing.
mod sse_pauses;
// Event streams whose server is lost or left, and that go on with another one.
mod sse_resume;
// A real Socket.IO cluster with real clients, beside nginx ip_hash.
mod socket_io;
// Engine.IO sessions byte by byte: tagged in the open packet, led home by the tag, taken off again.
mod engine_io;
// Other sessions that servers issue: learned from the response, found in later requests.
mod sessions;
// Fleets of proxies behind a hop that sends every request to another one, with real clients.
mod fleet;
// Sessions whose ids nobody may change: Socket.IO 2, MCP, SignalR and cookies of servers.
mod learned;
// Fleets that are half nginx and half the proxy, as on the way from one to the other.
mod migration;
// Files of nginx and Ingresses that become ours: on the command line, and beside the nginx they came from.
mod import;
// Which client goes to which server: as nginx hashes, by the first source, without needless moves.
mod stickiness;
// Servers that are not ready: what they keep, what they get no more, what moves.
// Another configuration while everything goes on.
mod reload;
// Servers, upstreams and the process are emptied.
mod drain;
// One of three real Socket.IO servers is drained under 300 real clients.
mod drain_socket_io;
// Relays that stray from where they belong move there, at a pace.
mod rebalance;
// Everything goes over to the next process, and nobody notices.
mod hand_over;
mod hand_over_orders;
// Reloads and hand-overs under thousands of relays in traffic.
mod everything_at_once;
mod states;
// Upstreams of the same servers: what is posted through one is pushed through the other.
mod pairs;
// The other ways to choose a server: by names, by turns, at random, within a bound.
mod balance;
// Affinity that collapsed: what the doctor says of it, once, and that it says nothing else.
mod doctor;
// Sessions in a real Redis that several proxies share, and what happens when it is away.
mod session_store;
// The access log, metrics and health.
mod seeing;
// Traces: what a collector sees, what servers hear, and collectors that are away.
mod traces;
// How many connections clients may have, what those hear for whom there is no room, and that every
// count returns to zero.
mod limits;
// How fast an upstream takes those who come to stay, and what those hear who are too many.
mod pacing;
// SIGTERM, and what becomes of everything that is open.
mod stopping;
// The files that people take away: examples, manifests, the image, the unit.
mod examples;
// What is published at one server reaches the clients of all, with the servers of conf/examples.
mod pushes;
// The API of the admin address.
mod admin_api;
// The command line that asks there.
mod admin_commands;
// The command line and its exit codes.
mod commands;
// What Prometheus and Grafana are given: metrics as the reference has them, rules, a dashboard.
mod reference;
