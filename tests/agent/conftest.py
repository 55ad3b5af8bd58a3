"""A real agent in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldlab.cli.common import ask_agent

AGENT = '[agent]\nname = "{name}"\ndata = "data"\nhttp = ""\n[place]\nsite = "drachten"\narea = "shavers"\nline = "3"\n'


class AgentProcess:
    """`fieldlab agent` on a configuration in its own folder; what it has in common with others is written for it."""

    def __init__(self, folder: Path, tables: str, name: str, wait_until: Callable[..., Any]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "fieldlab.toml"
        self.config.write_text(AGENT.format(name=name) + tables, "utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        self._wait_until = wait_until

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event it has logged; a line that is none (a traceback) counts as the event `unreadable`."""
        found = []
        for line in (self.folder / "agent.log").read_text("utf-8", "replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": "unreadable", "line": line})
        return found

    def start(self, *, connected: bool = True) -> "AgentProcess":
        """Start it and wait until it answers, and until its sources are connected."""
        assert self.process is None
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fieldlab.cli", "agent", str(self.config)], stdout=log, stderr=log
            )
        self._wait_until(lambda: self._up(connected), 60.0, "the agent is up")
        return self

    def _up(self, connected: bool) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the agent ended with {self.process.returncode}: {self.log[-20:]}")
        status = ask_agent(self.data, "/status")
        return status is not None and (not connected or all(s["connected"] for s in status["sources"]))

    def status(self) -> dict[str, Any]:
        """What `fieldlab status --json` prints."""
        status: dict[str, Any] = ask_agent(self.data, "/status")
        return status

    def query(self, path: str) -> Any:
        """An answer of the agent's first store."""
        return ask_agent(self.data, f"/query/{path}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code


@pytest.fixture
def agent(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents from the tables of a configuration file; each in a folder of its own."""
    made: list[AgentProcess] = []

    def make(tables: str, name: str = "test") -> AgentProcess:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir()
        made.append(AgentProcess(folder, tables, name, wait_until))
        return made[-1]

    yield make
    for process in made:
        if process.process is not None:
            process.kill()
