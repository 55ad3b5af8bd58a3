// Decodes Sparkplug B payloads with npm's sparkplug-payload: one line of base64 in, one JSON object a line out.
"use strict";
const sparkplug = require("sparkplug-payload").get("spBv1.0");
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const decoded = sparkplug.decodePayload(Buffer.from(line, "base64"));
  process.stdout.write(JSON.stringify(decoded, (_k, v) => (v !== null && v.low !== undefined ? Number(v) : v)) + "\n");
});
