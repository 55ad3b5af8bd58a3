"""One client a process: subscribes, lets things settle, and prints as JSON what the next seconds cost.

    python -m benchmarks.opcua.clients asyncua|fieldlab|subscribe URL ITEMS SECONDS INTERVAL_MS

Both Python clients do with a value the least that a program can: count it and, if it is a number, add it up.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.common.subscription import DataChangeNotif

from edge.sources.base import Delivery, SourceContext
from edge.sources.opcua import OpcuaConfig
from edge.sources.opcua.config import OpcuaSignal
from edge.sources.opcua.source import OpcuaSource
from fieldlab.config import Duration
from fieldlab.model import Batch, Gap, Guarantee, SignalInfo, SignalKey
from fieldlab.model.record import Row
from ingest.stores.base import DeadLetter

URI = "urn:fieldlab:benchmark"
SETTLE = 5.0  # also for V8 to compile what node-opcua needs


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Handler:
    """asyncua calls it once a value."""

    def __init__(self) -> None:
        self.values = 0
        self.sum = 0.0

    def datachange_notification(self, node: Node, value: Any, data: DataChangeNotif) -> None:  # noqa: ARG002  asyncua's signature
        self.values += 1
        if isinstance(value, float):
            self.sum += value


class CountingSink:
    """A journal that has everything at once."""

    def __init__(self) -> None:
        self.values = 0
        self.signals = 0
        self.sum = 0.0

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:  # noqa: ARG002  nothing is kept
        self.signals += 1
        return self.signals - 1

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        raise NotImplementedError

    def append(
        self,
        batch: Batch,
        *,
        delivery: Delivery | None = None,  # noqa: ARG002  same
        overflow: dict[int, int] | None = None,  # noqa: ARG002  same
    ) -> "Future[None]":
        self.values += len(batch)
        self.sum += float(np.add.reduce(batch.value, where=batch.value == batch.value))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def backfill(self, batch: Batch, *, delivery: Delivery | None = None) -> "Future[None]":
        raise NotImplementedError

    def write(self, rows: Sequence[Row]) -> "Future[None]":
        raise NotImplementedError

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":  # noqa: ARG002  same
        raise SystemExit(f"{len(letters)} responses could not be read: {letters[0].reason}")

    def open_gap(self, *_: Any, **__: Any) -> None:
        pass

    def end_gap(self, *_: Any, **__: Any) -> None:
        pass

    def note_gap(self, *_: Any, **__: Any) -> None:
        pass

    def gaps(self, source: str) -> list[Gap]:  # noqa: ARG002  same
        return []

    def close_gaps(self, *_: Any, **__: Any) -> "Future[None]":
        raise NotImplementedError

    def signals_of(self, source: str) -> dict[int, SignalKey]:  # noqa: ARG002  same
        return {}

    def last_times(self, signals: Iterable[int]) -> dict[int, int]:  # noqa: ARG002  same
        return {}


async def measure(counted: Handler | CountingSink, seconds: float) -> dict[str, Any]:
    """What `counted` got in `seconds`, and the CPU seconds of this process meanwhile."""
    while not counted.values:  # noqa: ASYNC110  a benchmark adds no event to what it measures
        await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLE)
    values, used, start = counted.values, cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    return {"values": counted.values - values, "cpu_s": cpu() - used, "seconds": time.monotonic() - start}


async def run_asyncua(url: str, items: int, seconds: float, interval: float) -> dict[str, Any]:
    """asyncua's subscription in handler mode."""
    handler = Handler()
    # Its defaults give up a server that is slow to answer because the whole machine is busy.
    async with Client(url, timeout=30, watchdog_intervall=30) as client:
        index = await client.get_namespace_index(URI)
        subscription = await client.create_subscription(interval, handler)
        nodes = [client.get_node(f"ns={index};s=v{i}") for i in range(items)]
        await subscription.subscribe_data_change(nodes, queuesize=20, sampling_interval=ua.Double(0))
        return await measure(handler, seconds)


async def run_fieldlab(url: str, items: int, seconds: float, interval: float) -> dict[str, Any]:
    """Our source, from the socket to the batch."""
    return await _with_source(url, items, interval, lambda _, sink: measure(sink, seconds))


async def run_subscribe(url: str, items: int, seconds: float, interval: float) -> dict[str, Any]:
    """Our CPU from nothing to `items` items that have all given their first value; fails after `seconds`."""

    async def subscribed(source: OpcuaSource, sink: CountingSink) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while sink.values < items or source.status().signals < items:  # noqa: ASYNC110  a benchmark adds no event to what it measures
                await asyncio.sleep(0.01)
        return {"items": items, "cpu_s": cpu() - used, "seconds": time.monotonic() - start}

    used, start = cpu(), time.monotonic()
    return await _with_source(url, items, interval, subscribed)


async def _with_source(url: str, items: int, interval: float, then: Any) -> dict[str, Any]:
    signals = tuple(OpcuaSignal(name=f"v{i}", node=f"nsu={URI};s=v{i}") for i in range(items))
    config = OpcuaConfig(
        kind="opcua", url=url, machine="load", security="none", signal=signals,
        interval=Duration(interval / 1000), sampling=Duration(0), queue=20, timeout=Duration(20),
    )  # fmt: skip
    sink = CountingSink()
    with tempfile.TemporaryDirectory() as folder:
        context = SourceContext(
            name="opcua-0", agent="benchmark", index=0, site="s", area="a", line="l", data=Path(folder)
        )
        source = OpcuaSource(config, context, sink)
        stop = asyncio.Event()
        running = asyncio.create_task(source.run(stop))
        found: dict[str, Any] = await then(source, sink)
        counters = source.status().counters
        stop.set()
        await running
        return {**found, **{name: counters[name] for name in ("gaps", "undecodable", "unkept")}}


RUN = {"asyncua": run_asyncua, "fieldlab": run_fieldlab, "subscribe": run_subscribe}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(RUN[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:6])))))
