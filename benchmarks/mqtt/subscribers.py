"""One subscriber, in a process of its own: prints `ready`, takes N messages, prints what they cost as JSON.

subscribers.py NAME URL N CA        NAME: ours-journal, ours-null, paho, paho-json
subscribers.py latency-GATHER URL N CA      GATHER: seconds, or default
"""

# ruff: noqa: ASYNC110  # the source has counters and no events: what it costs to look is counted
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.catalog import Catalog
from edge.intake import Intake
from edge.sources.base import SourceContext
from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig
from fieldlab.config import Duration
from fieldlab.model import SignalTable
from ingest.gaps import Gaps
from ingest.journal import Journal


def usage(began: float, wall: float, messages: int, **more: Any) -> None:
    spent = time.process_time() - began
    print(json.dumps({"cpu_s": spent, "wall_s": time.monotonic() - wall, "messages": messages, **more}), flush=True)


def paho(url: str, count: int, ca: str, *, parse: bool) -> None:
    client = Client(CallbackAPIVersion.VERSION2, "plain-paho", clean_session=True)
    if ca:
        client.tls_set(ca)
    seen = 0
    began = wall = 0.0

    def on_message(_client: Any, _userdata: Any, message: Any) -> None:
        nonlocal seen
        seen += 1
        if parse:
            json.loads(message.payload)
        if seen == count:
            client.disconnect()

    def on_subscribe(*_: Any) -> None:
        nonlocal began, wall
        print("ready", flush=True)
        began, wall = time.process_time(), time.monotonic()

    client.on_message = on_message
    client.on_subscribe = on_subscribe

    def on_connect(*_: Any) -> None:
        client.subscribe("fieldlab/#", qos=1)

    client.on_connect = on_connect
    host, _, port = url.partition("://")[2].partition(":")
    client.connect(host, int(port))
    client.loop_forever()
    usage(began, wall, seen)


class NullSink:
    """Its futures are done at once; notes how late each reading is, if asked to."""

    def __init__(self, *, times: bool) -> None:
        self.signals = SignalTable()
        self.late: list[Any] = [] if times else [None]
        self._times = times

    def index(self, key: Any, _guarantee: str = "end-to-end") -> int:
        return self.signals.index(key)

    def append(self, batch: Any, **_: Any) -> "Future[None]":
        if self._times:
            self.late.append(time.time_ns() - batch.time)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def signals_of(self, _source: str) -> dict[int, Any]:
        return {}

    def last_times(self, _signals: Any) -> dict[int, int]:
        return {}

    def set_aside(self, letters: Any, **_: Any) -> "Future[None]":
        raise SystemExit(f"unreadable: {letters[0].reason}")


def ours(url: str, count: int, ca: str, *, journal: bool, latency: bool = False, gather: str = "default") -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        kept = Journal(data / "journal.db") if journal else None
        null = NullSink(times=latency)
        sink: Any = null
        if kept is not None:
            sink = Intake("mqtt-0", kept, Catalog(kept.signals, [], lambda _info: None), Gaps(kept, "bench"))
        extra: dict[str, Any] = {"ca_file": Path(ca)} if ca else {}
        if gather != "default":
            extra["gather"] = Duration(float(gather))
        config = MqttConfig(url=url, client_id=f"benchmark-{os.getpid()}", session_expiry=Duration(1), **extra)
        context = SourceContext(name="mqtt-0", agent="b", index=0, site="s", area="a", line="l", data=data)
        source = KIND.create(config, context, sink)

        async def run() -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(source.run(stop))
            while not source._subscriptions.answered:  # type: ignore[attr-defined]  # no public word for it
                await asyncio.sleep(0.01)
            gc.collect()
            print("ready", flush=True)
            began, wall = time.process_time(), time.monotonic()
            while (s := source.status().counters)["messages"] < count or s["in_flight"]:
                await asyncio.sleep(0.1)
            more: dict[str, Any] = {"readings": s["readings"]}
            if latency:
                late = np.concatenate(null.late) / 1e6
                more |= {f"p{q}_ms": round(float(np.percentile(late, q)), 3) for q in (50, 99)}
            usage(began, wall, s["messages"], **more)
            stop.set()
            await running

        asyncio.run(run())
        if kept is not None:
            counts = kept.identity.totals(len(kept.signals))
            assert counts["committed"].sum() == s_total(counts), "the journal holds everything that was sent"
            kept.close()


def s_total(counts: Any) -> int:
    return int(counts["received"].sum())


def main() -> None:
    name, url, count, ca = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else ""
    if name.startswith("paho"):
        paho(url, count, ca, parse=name == "paho-json")
    elif name.startswith("latency-"):
        ours(url, count, ca, journal=False, latency=True, gather=name.partition("-")[2])
    else:
        ours(url, count, ca, journal=name == "ours-journal")


main()
