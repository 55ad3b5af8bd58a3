"""Publishes ready-made QoS 1 packets as fast as the broker acknowledges them, or paced.

    feeder.py HOST PORT MESSAGES VALUES RATE

The same bytes for every subscriber: `TOPICS` topics in turn, times a millisecond apart on each.
"""

import json
import select
import socket
import struct
import sys
import time

TOPICS = 100
WINDOW = 1000
CHUNK = 50


def topic(i: int) -> str:
    return f"fieldlab/drachten/shavers/3/machine-{i % TOPICS // 10}/signal-{i % 10}"


def payload(i: int, values: int, start: float) -> bytes:
    at = start + i // TOPICS * values * 0.001
    if values == 1:
        return json.dumps({"value": round(200 + i % 977 * 0.01, 2), "ts": round(at, 3), "status": 0}).encode()
    body = {"value": [round(200 + (i + k) % 977 * 0.01, 2) for k in range(values)]}
    return json.dumps(body | {"ts": [round(at + k * 0.001, 3) for k in range(values)]}).encode()


def packet(i: int, body: bytes) -> bytes:
    name = topic(i).encode()
    length = 2 + len(name) + 2 + len(body)
    digits = bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        digits.append(digit | (0x80 if length else 0))
        if not length:
            break
    return b"\x32" + bytes(digits) + struct.pack(">H", len(name)) + name + struct.pack(">H", i % 65_535 + 1) + body


def main() -> None:
    host, port, count, values, rate = sys.argv[1], *map(int, sys.argv[2:6])
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06feeder")
    while len(sock.recv(4)) < 4:
        pass
    # every run its own times, so that nothing is a repeat of the run before
    start = time.time() - 80_000 if not rate else time.time()
    ready = [] if rate else [packet(i, payload(i, values, start)) for i in range(count)]
    sent = acknowledged = 0
    began = time.monotonic()
    while acknowledged < 4 * count:
        room = min(CHUNK, count - sent, WINDOW - (sent - acknowledged // 4))
        if rate:
            room = min(room, 1, int((time.monotonic() - began) * rate) - sent)
        if room > 0:
            if rate:
                body = json.dumps({"value": float(sent), "ts": time.time_ns() // 1000}).encode()
                sock.sendall(packet(sent, body))
            else:
                sock.sendall(b"".join(ready[sent : sent + room]))
            sent += room
        wait = 0 if room > 0 else (0.0005 if rate else 1.0)
        if select.select([sock], [], [], wait)[0]:
            acknowledged += len(sock.recv(1 << 16))
    print(json.dumps({"seconds": time.monotonic() - began}))


main()
