"""A source packaged outside this repository: found by its entry point, run by the agent, held to the contract."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = Path(__file__).parent / "package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package's wheel in it, as pip would leave it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=source, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`run(*arguments)` runs Python with the package installed; `first` is a folder that comes before it."""

    def call(*arguments: str, first: Path | None = None) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join(str(p) for p in (first, installed, ROOT) if p is not None)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


def suite(
    run: Callable[..., "subprocess.CompletedProcess[str]"], folder: Path, only: str = "test", **options: Path
) -> "subprocess.CompletedProcess[str]":
    shutil.copy(PACKAGE / "test_lines.py", folder)  # away from our own conftest.py
    return run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-k", only, "test_lines.py", **options)


def test_a_source_of_somebody_else_passes_the_contract(
    run: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    ran = suite(run, tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "8 passed, 1 skipped" in ran.stdout  # it promises nothing end to end


@pytest.mark.parametrize(
    ("right", "wrong", "caught"),
    [
        ("status = [BAD_NO_COMMUNICATION] * n", "status = [0] * n", "lost_connection"),
        ("            self._unreadable += 1\n", "            raise\n", "cannot_be_read"),
        ("self._last_time = max(", "self._last_time = -max(-", "once_and_in_order"),
    ],
)
def test_the_contract_catches_a_source_that_breaks_it(
    run: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path, right: str, wrong: str, caught: str
) -> None:
    text = (PACKAGE / "lines_source.py").read_text()
    assert right in text
    (tmp_path / "lines_source.py").write_text(text.replace(right, wrong))
    ran = suite(run, tmp_path, caught, first=tmp_path)
    assert ran.returncode == 1, ran.stdout
    assert caught in ran.stdout


def test_the_agent_knows_the_kind(run: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(
        '[agent]\nname = "a"\n[[source]]\nkind = "lines"\nhost = "127.0.0.1"\nport = 9\nmachine = "scale-1"\n'
    )
    ran = run("-m", "fieldlab.cli", "check", "f.toml")
    assert ran.returncode == 1, ran.stderr
    assert "127.0.0.1:9" in ran.stdout
    (tmp_path / "f.toml").write_text('[agent]\nname = "a"\n[[source]]\nkind = "line"\n')
    ran = run("-m", "fieldlab.cli", "check", "f.toml")
    assert ran.returncode == 2
    assert "lines" in ran.stderr


def test_a_plug_in_that_breaks_is_named(run: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('[agent]\nname = "a"\n[[source]]\nkind = "lines"\n')
    (tmp_path / "lines_source.py").write_text("KIND = 1\n")
    ran = run("-m", "fieldlab.cli", "check", "f.toml", first=tmp_path)
    assert ran.returncode == 2
    assert "fieldlab-source-lines" in ran.stderr
