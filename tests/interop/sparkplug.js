// Encodes Sparkplug B payloads with npm's sparkplug-payload: one JSON object a line in, one line of base64 out.
// {"$bytes": [...]} stands for bytes, {"$long": "..."} for a 64-bit number.
"use strict";
const sparkplug = require("sparkplug-payload").get("spBv1.0");
const Long = require("long");

function revive(_key, value) {
  if (value !== null && typeof value === "object") {
    if ("$bytes" in value) return Uint8Array.from(value.$bytes);
    if ("$long" in value) return Long.fromString(value.$long, !value.$long.startsWith("-"));
  }
  return value;
}

const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const encoded = sparkplug.encodePayload(JSON.parse(line, revive));
  process.stdout.write(Buffer.from(encoded).toString("base64") + "\n");
});
