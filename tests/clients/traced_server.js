// A server that is traced as applications are: by OpenTelemetry's SDK and its instrumentation of Node's
// own HTTP, which takes up the trace of a request from `traceparent`. It answers with its name.
// Argument: { name, collector }, the latter the URL that spans are posted to. Prints its port.
"use strict";

const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { NodeTracerProvider, SimpleSpanProcessor } = require("@opentelemetry/sdk-trace-node");

const { name, collector } = JSON.parse(process.argv[2]);
process.stdin.on("end", () => process.exit()).resume();

const exporter = new OTLPTraceExporter({ url: collector });
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });

// Behind the registration: that is what it changes.
const http = require("http");

const server = http.createServer((request, response) => response.end(name));
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
