// Decodes Sparkplug B payloads with npm's sparkplug-payload: one line of base64 in, one JSON object a line out.
// A 64-bit number is {"$long": "..."}, bytes are {"$bytes": [...]}, a number that is none is {"$number": "NaN"}.
"use strict";
const sparkplug = require("sparkplug-payload").get("spBv1.0");
const Long = require("long");

function plain(value) {
  if (Long.isLong(value)) return { $long: value.toString() };
  if (value instanceof Uint8Array) return { $bytes: Array.from(value) };
  if (typeof value === "number" && !Number.isFinite(value)) return { $number: String(value) };
  if (Array.isArray(value)) return value.map(plain);
  if (value !== null && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, held]) => [key, plain(held)]));
  return value;
}

const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const decoded = sparkplug.decodePayload(Buffer.from(line, "base64"));
  process.stdout.write(JSON.stringify(plain(decoded)) + "\n");
});
