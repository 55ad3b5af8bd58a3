"""The hall scenario, run once through a real agent into a real influxd, with an incident at its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from fieldlab.cli.common import ask_agent
from fieldlab.cli.demo import configuration
from fieldlab.model import ActionRow, MachineEvent, Place, Record, RecordKind, SignalTable
from ingest.stores import load_kind
from ingest.stores.base import StoreContext

SECONDS = 25  # the printer's nozzle is still clogged then, so that a finding is open


class Hall(NamedTuple):
    """A database that holds the hall's data."""

    influxd: Any
    database: str

    def query(self, influxql: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.influxd.query(influxql, self.database)
        return rows


class _Command:
    """A `fieldlab` command in a process and a session of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out = folder / f"{arguments[0]}.out"
        self._log = folder / f"{arguments[0]}.log"
        with self.out.open("wb") as out, self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fieldlab.cli", *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                start_new_session=True,  # a simulator has a broker and servers of its own
            )

    def alive(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"ended with {self.process.returncode}: {self._log.read_text('utf-8', 'replace')[-3000:]}")
        return True

    def event(self, name: str) -> dict[str, Any] | None:
        """The newest event of a simulator with this name."""
        self.alive()
        for line in self.out.read_text("utf-8").splitlines()[::-1]:
            with contextlib.suppress(ValueError):
                event: dict[str, Any] = json.loads(line)
                if event["event"] == name:
                    return event
        return None

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


@pytest.fixture(scope="session")
def hall(influxd: Any, wait_until: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """Production, then machines that go away, and an agent that restarts twice (it writes its ledger at once)."""
    folder = tmp_path_factory.mktemp("hall")
    found = Hall(influxd, influxd.create_database())
    with contextlib.ExitStack() as stack:

        def run(*arguments: str) -> _Command:
            command = _Command(folder, *arguments)
            stack.callback(command.end)
            return command

        machines = run(
            "simulate",
            "hall",
            "--hold",
            "--json",
            "--truth",
            str(folder / "truth.jsonl"),
            "--duration",
            str(SECONDS),
        )
        ready = wait_until(lambda: machines.event("ready"), 60.0, "the simulated machines are up")
        store = f'\n[[store]]\nkind = "influxdb"\nurl = "{influxd.url}"\napi = "v1"\nbucket = "{found.database}"\n'
        (folder / "fieldlab.toml").write_text(configuration(ready, port=0) + store, "utf-8")

        def start() -> _Command:
            agent = run("agent", str(folder / "fieldlab.toml"))
            wait_until(lambda: agent.alive() and connected() is not None, 60.0, "the agent is up")
            return agent

        def connected() -> bool | None:
            status = ask_agent(folder / "data", "/status")
            return None if status is None else all(source["connected"] for source in status["sources"])

        def ledger_after(time: int) -> int | None:
            rows = found.query('SELECT last("committed") FROM "ledger"')
            return rows[0]["time"] if rows and rows[0]["time"] > time else None

        agent = start()
        wait_until(connected, 60.0, "the agent is connected")
        machines.begin()
        wait_until(lambda: machines.event("finished"), SECONDS + 60.0, "production ends")
        machines.end()
        bad = 'SELECT count("status") FROM "telemetry" WHERE "status" = 2150694912 GROUP BY "machine"'
        wait_until(lambda: len(found.query(bad)) == 3, 60.0, "the loss of every connection is stored")
        first = 0
        for _ in range(2):  # a rate needs two rows of the ledger
            agent.stop()
            agent = start()
            first = wait_until(lambda first=first: ledger_after(first), 60.0, "the ledger is stored")
        agent.stop()
        report_an_alarm(found)
        yield found


def report_an_alarm(hall: Hall) -> None:
    """The simulated machines report no events, so the store is given what an agent writes of an alarm of one."""
    rows = hall.query('SELECT last("value") FROM "telemetry" GROUP BY "site", "area", "line", "machine"')
    mill = next(row for row in rows if row["machine"] == "cnc-07")
    kind = load_kind("influxdb")
    config = kind.config(url=hall.influxd.url, api="v1", bucket=hall.database)
    store, _ = kind.create(config, StoreContext(name="here", agent="demo", data=Path()), SignalTable())
    raised = MachineEvent(
        time=time.time_ns(),
        place=Place(mill["site"], mill["area"], mill["line"], mill["machine"]),
        source="Spindle",
        kind="ExclusiveLevelAlarmType",
        id="0a1b",
        condition="nsu=urn:fieldlab:sim;s=cnc-07.hot",
        severity=800,
        message="spindle too hot",
        active=True,
        acknowledged=False,
        retain=True,
        detail={"high_limit": "70"},
    )
    calm = msgspec.structs.replace(
        raised, time=raised.time + 1, id="0a1c", active=False, acknowledged=True, retain=False
    )
    acted = ActionRow(
        time=raised.time,
        place=raised.place,
        action="hold",
        id="0a1d",
        trigger="f1",
        target="nsu=urn:fieldlab:sim;s=cnc-07.hold",
        value="true",
        outcome="refused",
        detail="BadUserAccessDenied",
    )
    events = Record(1, RecordKind.EVENT, raised.time, rows=(raised, calm))
    assert not store.write([events, Record(2, RecordKind.ACTION, raised.time, rows=(acted,))])
    store.close()
