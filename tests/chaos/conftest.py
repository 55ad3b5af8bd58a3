"""What the chaos tests share: the agent of tests/agent, a seed, one line of figures, faults inside a child process."""

import importlib.util
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _load(file: Path) -> Any:
    """A file of tests as a module: tests are no package."""
    spec = importlib.util.spec_from_file_location(f"chaos_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_agents = _load(HERE.parent / "agent" / "conftest.py")
_files = _load(HERE / "file_layer.py")
agent = _agents.agent  # the same real agent, in a process of its own
fieldlab = _agents.fieldlab
publish = _agents.publish
mqtt_source = _agents.mqtt_source


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of all chance: the same in each run, unless FIELDLAB_SEED says another."""
    return int(os.environ.get("FIELDLAB_SEED", "20261124"))


@pytest.fixture
def tell(request: pytest.FixtureRequest, seed: int) -> Callable[..., None]:
    """`tell(sent=…, committed=…, stored=…, dead=…, lost=…)` prints one line, with the seed."""

    def say(**figures: object) -> None:
        words = " ".join(f"{name}={value}" for name, value in figures.items())
        print(f"\nchaos {request.node.name}: {words} seed={seed}", file=sys.stdout, flush=True)

    return say


@pytest.fixture
def adds_up() -> Callable[[Any], dict[str, int]]:
    """`adds_up(process)`: the invariants of the ledger hold for every signal and store, counted from the disk."""

    def look(process: Any) -> dict[str, int]:
        done = _agents.run_fieldlab("report", "ledger", "--config", process.config, "--json")
        found = json.loads(done.out)
        assert found["holds"], found
        ledger: dict[str, int] = process.ledger()
        return ledger

    return look


@pytest.fixture
def file_layer() -> Callable[[], Any]:
    """`with file_layer() as layer:` records and refuses what SQLite does to its files meanwhile; see file_layer.py."""
    made: Callable[[], Any] = _files.installed
    return made


class Faults:
    """Faults inside the agents that are started next: `hooks/sitecustomize.py` reads what is written here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch
        self._names = folder / "names.json"
        self._clock = folder / "clock"
        self._clock.write_bytes(bytes(8))
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE / "hooks"), before])))

    def kill_at(self, where: str = "") -> None:
        """The next agent kills itself there: `module:Class.method before|after N [name]`; empty: it does not."""
        self._set.setenv("CHAOS_KILL", where)

    def resolve(self, names: dict[str, str]) -> None:
        """Host names below `.test` that resolve from now on, in agents started after the first call."""
        self._names.write_text(json.dumps(names), "utf-8")
        self._set.setenv("CHAOS_NAMES", str(self._names))

    def set_clock(self, seconds: float) -> None:
        """By how much the clocks of the agents, started after the first call, are wrong from now on."""
        self._set.setenv("CHAOS_CLOCK", str(self._clock))
        with self._clock.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            struct.pack_into("<q", shared, 0, int(seconds * 1e9))


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults inside the agents that this test starts."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return Faults(folder, monkeypatch)
