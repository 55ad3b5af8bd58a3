"""The wheel: what is in it, and what installing it brings along."""

import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("fieldlab", "edge", "ingest", "analytics", "simulators", "deploy", "board")
NOT_AGENT = {
    "amqtt",
    "duckdb",
    "grafana-api",
    "hatchling",
    "hypothesis",
    "mypy",
    "playwright",
    "plotly",
    "pytest",
    "scipy",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("fieldlab-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def requirements(metadata: Message, extra: str) -> set[str]:
    """Names of what an install with `extra` ("" for none) asks for directly."""
    found = [Requirement(str(line)) for line in metadata.get_all("Requires-Dist", [])]
    return {canonicalize_name(r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": extra})}


def test_the_wheel_holds_every_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_types_of_a_package_ship(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()
    assert f"{package}/__init__.py" in wheel.namelist()


def test_every_tracked_file_of_a_package_ships(wheel: zipfile.ZipFile) -> None:
    """Pages, scenarios, samples and boards are data that code opens at run time."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert tracked
    assert tracked - set(wheel.namelist()) == set()


def test_the_command_and_the_licence_ship(wheel: zipfile.ZipFile, metadata: Message) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
    assert "fieldlab = fieldlab.cli:main" in wheel.read(name).decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    (licence,) = (n for n in wheel.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
    assert b"Apache License" in wheel.read(licence)


def test_an_edge_device_installs_the_agent_alone(metadata: Message) -> None:
    alone = requirements(metadata, "")
    assert alone >= {"asyncua", "paho-mqtt", "influxdb-client", "msgspec", "numpy"}
    assert alone & NOT_AGENT == set()


@pytest.mark.parametrize(
    ("extra", "brings"),
    [("embedded", {"duckdb"}), ("board", {"plotly"}), ("simulators", {"amqtt"}), ("boards", {"grafana-api"})],
)
def test_an_extra_brings_its_own(metadata: Message, extra: str, brings: set[str]) -> None:
    assert requirements(metadata, extra) - requirements(metadata, "") >= brings


def test_every_requirement_is_pinned_for_repeatable_installs() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    pinned = {canonicalize_name(pin.name): pin for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for wanted in (Requirement(line) for group in groups for line in group):
        if wanted.name == "fieldlab":  # an extra that includes another
            continue
        pin = pinned.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{wanted.name} is not in constraints.txt: run .ci/constraints"
        (version,) = (s.version for s in pin.specifier)
        assert wanted.specifier.contains(version), f"{pin} does not satisfy {wanted}: run .ci/constraints"
