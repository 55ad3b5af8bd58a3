"""The walls between the packages: who may import whom, and what an agent does not import until it is configured."""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("fieldlab", "edge", "ingest", "analytics", "simulators", "deploy", "board")
COMMON = ("fieldlab.errors", "fieldlab.config", "fieldlab.secrets")
SPARKPLUG = "fieldlab.sparkplug"  # the wire format alone

# Room → what of Fieldlab it may import, besides itself. The longest room that fits a module is its room.
MAY_IMPORT = {
    "fieldlab": (),
    "fieldlab.model": (),
    SPARKPLUG: (),
    "fieldlab.errors": (),
    "fieldlab.config": COMMON,
    "fieldlab.secrets": COMMON,
    "ingest": ("fieldlab.model", SPARKPLUG, *COMMON, "fieldlab"),
    "analytics": ("fieldlab.model",),
    "edge": ("ingest", "analytics", "fieldlab.model", SPARKPLUG, *COMMON, "fieldlab"),
    "board": ("ingest.stores.base", "fieldlab.model", *COMMON, "fieldlab"),
    "deploy": ("fieldlab.model", *COMMON, "fieldlab"),
    "simulators": (),
    "fieldlab.cli": PACKAGES,
    "fieldlab.__main__": ("fieldlab.cli",),
}

# The judgement is a fold over the journal: nothing here that tells the time, or reaches out of the process.
NOT_IN_ANALYTICS = {
    "time",
    "zoneinfo",
    "random",
    "asyncio",
    "threading",
    "socket",
    "sqlite3",
    "os",
    "pathlib",
}
CLOCKS = {"now", "today", "utcnow"}  # of datetime, which is fine for writing an event's time
LIBRARIES_OF_ANALYTICS = {"numpy", "msgspec"}

# What belongs to one kind of source, store or view, and costs an agent memory only when its configuration names it.
LAZY = {"amqtt", "asyncua", "duckdb", "grafana_api", "influxdb_client", "paho", "plotly", "scipy"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, wherever in the file and by whatever spelling."""

    def is_module(name: str) -> bool:
        place = root.joinpath(*name.split("."))
        return place.with_suffix(".py").exists() or place.is_dir()

    here = module_name(path, root).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if is_module(inner) else source
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if called in {"import_module", "__import__"}:
                first = node.args[0]
                if isinstance(first, ast.JoinedStr) and first.values:
                    first = first.values[0]  # f"edge.sources.{kind}": what is known of it
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node.lineno, first.value.rstrip(".")


def clocks(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            yield node.lineno, node.attr


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def breaches(root: Path) -> list[str]:
    """Every import under `root` that goes through a wall, as `file:line: what`."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = module_name(path, root)
            room = max((r for r in MAY_IMPORT if within(name, r)), key=len)
            if room == "analytics":
                found += [
                    f"{path.relative_to(root)}:{line}: analytics may not ask {clock}()" for line, clock in clocks(path)
                ]
            for line, target in imports(path, root):
                top = target.partition(".")[0]
                where = f"{path.relative_to(root)}:{line}: {room} may not import {target}"
                if top in PACKAGES:
                    # "fieldlab" in a list means the package itself (its version), not everything in it
                    allowed = any(
                        target == a if a == "fieldlab" and room != "fieldlab.cli" else within(target, a)
                        for a in MAY_IMPORT[room]
                    )
                    own = within(target, room) if room != "fieldlab" else target == "fieldlab"
                    if not allowed and not own:
                        found.append(where)
                elif room == "analytics" and (
                    top in NOT_IN_ANALYTICS
                    or (top not in sys.stdlib_module_names and top not in LIBRARIES_OF_ANALYTICS)
                ):
                    found.append(where)
    return found


def test_no_import_goes_through_a_wall() -> None:
    assert breaches(ROOT) == []


def test_every_package_is_looked_at() -> None:
    """A package that is added to the wheel, or moved, does not slip past the check."""
    here = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(shipped["packages"]) == set(PACKAGES)
    assert here - {"benchmarks"} == set(PACKAGES)  # benchmarks may import everything, and do not ship


@pytest.mark.parametrize(
    ("file", "code", "told"),
    [
        (
            "fieldlab/model/x.py",
            "from fieldlab.config import Document",
            "fieldlab.model may not import fieldlab.config",
        ),
        ("fieldlab/config.py", "import ingest", "fieldlab.config may not import ingest"),
        ("ingest/x.py", "def f():\n    import analytics.charts", "ingest may not import analytics.charts"),
        ("ingest/x.py", "from fieldlab import cli", "ingest may not import fieldlab.cli"),
        ("ingest/x.py", "import edge", "ingest may not import edge"),
        ("analytics/x.py", "from fieldlab import errors", "analytics may not import fieldlab.errors"),
        ("analytics/x.py", "import time", "analytics may not import time"),
        ("analytics/x.py", "from datetime import datetime\ndatetime.now()", "analytics may not ask now()"),
        ("analytics/x.py", "import scipy.stats", "analytics may not import scipy.stats"),
        ("analytics/x.py", "from ingest.stores import base", "analytics may not import ingest.stores.base"),
        ("edge/sources/x.py", "if TYPE_CHECKING:\n    import board", "edge may not import board"),
        ("edge/x.py", "import importlib\nimportlib.import_module('fieldlab.cli')", "edge may not import fieldlab.cli"),
        ("edge/x.py", "__import__(f'simulators.{kind}')", "edge may not import simulators"),
        ("board/x.py", "from ingest.stores import embedded", "board may not import ingest.stores.embedded"),
        ("board/x.py", "from ingest import journal", "board may not import ingest.journal"),
        ("simulators/x.py", "import fieldlab.model", "simulators may not import fieldlab.model"),
        ("simulators/machines/x.py", "from fieldlab import __version__", "simulators may not import fieldlab"),
        ("deploy/x.py", "import edge.agent", "deploy may not import edge.agent"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, code: str, told: str) -> None:
    for module in ("fieldlab/cli", "fieldlab/model", "ingest/journal", "ingest/stores/embedded", "edge/sources"):
        (tmp_path / module).mkdir(parents=True)
    for module in ("fieldlab/config", "fieldlab/errors", "ingest/stores/base"):
        (tmp_path / module).with_suffix(".py").touch()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert [b.split(": ", 1)[1] for b in breaches(tmp_path)] == [told]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("fieldlab/model/x.py", "from . import y"),
        ("fieldlab/cli/x.py", "import simulators, board, edge.agent"),
        ("ingest/x.py", "from fieldlab.secrets import read_secret\nfrom fieldlab import __version__"),
        ("analytics/x.py", "import math\nimport numpy as np\nfrom fieldlab.model import Batch"),
        ("edge/x.py", "from analytics.charts import ewma\nfrom ingest.journal import Journal"),
        ("board/x.py", "from ingest.stores.base import Reader"),
        ("simulators/x.py", "from simulators.machines import robot\nimport asyncua"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert breaches(tmp_path) == []


def loaded_by(*modules: str) -> set[str]:
    """Top-level names of everything that a fresh interpreter has loaded after importing `modules`."""
    code = f"import json, sys\nimport {', '.join(modules)}\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return {name.partition(".")[0] for name in json.loads(ran.stdout)}


def exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


@pytest.mark.parametrize("module", ["edge.config", "edge.agent", "fieldlab.cli", "board", "simulators"])
def test_a_kind_that_is_not_configured_is_not_imported(module: str) -> None:
    if not exists(module):
        pytest.skip(f"{module} is not built yet")
    assert loaded_by(module) & LAZY == set()


@pytest.mark.parametrize(
    "module", ["fieldlab.model", "fieldlab.config", "ingest.journal", "ingest.stores.base", "analytics"]
)
def test_the_shared_words_load_no_kind(module: str) -> None:
    if not exists(module):
        pytest.skip(f"{module} is not built yet")
    assert loaded_by(module) & LAZY == set()


def test_a_loaded_kind_is_seen() -> None:
    assert "influxdb_client" in loaded_by("influxdb_client")
