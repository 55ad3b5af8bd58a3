"""The path that most people write first: a handler call a value, a row a value, a Point a value.

asyncua's subscription handler → one Python object a value → SQLite rows, committed twice a second → influxdb-client's
batching WriteApi.
Prints JSON: values and CPU seconds between the first and the last second of the run.
"""

import asyncio
import json
import resource
import sqlite3
import sys
import time
from pathlib import Path

from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.common.subscription import DataChangeNotif
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import WriteApi, WriteOptions


class Handler:
    def __init__(self, db: sqlite3.Connection, write: WriteApi) -> None:
        self.db, self.write, self.values = db, write, 0

    def datachange_notification(self, node: Node, value: float, data: DataChangeNotif) -> None:
        stamp = data.monitored_item.Value.SourceTimestamp
        name = node.nodeid.Identifier
        self.db.execute("INSERT INTO reading VALUES (?, ?, ?)", (name, stamp.timestamp(), value))
        point = Point("telemetry").tag("machine", "load").tag("signal", name)  # type: ignore[no-untyped-call]  # the client has no types here
        point.field("value", value).time(stamp)  # same
        self.write.write(bucket="telemetry", record=point)
        self.values += 1


async def main(url: str, influx: str, count: int, seconds: float, folder: Path) -> None:
    db = sqlite3.connect(folder / "naive.db", isolation_level=None)
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE reading (signal TEXT, time REAL, value REAL);"
    )
    db.execute("BEGIN")
    with InfluxDBClient(url=influx, token="t", org="o") as influxdb:
        write = influxdb.write_api(write_options=WriteOptions(batch_size=5000, flush_interval=1000))
        handler = Handler(db, write)
        async with Client(url) as client:
            index = await client.get_namespace_index("urn:fieldlab:benchmark")
            subscription = await client.create_subscription(100, handler)
            nodes = [client.get_node(f"ns={index};s=v{i}") for i in range(count)]
            await subscription.subscribe_data_change(nodes, queuesize=20)
            await asyncio.sleep(2)
            values, cpu, end = handler.values, _cpu(), time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(0.5)
                db.execute("COMMIT")
                db.execute("BEGIN")
            print(json.dumps({"values": handler.values - values, "cpu_s": _cpu() - cpu}), flush=True)
        write.close()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])))
