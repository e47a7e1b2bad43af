// Runs a server of conf/examples as it stands there, with the packages of this directory (NODE_PATH), until
// stdin ends. Argument: the path of its file. Its environment is the test's.
"use strict";

process.stdin.on("end", () => process.exit()).resume();
require(JSON.parse(process.argv[2]));
