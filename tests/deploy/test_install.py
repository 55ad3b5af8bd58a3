"""The install script in a Debian of its own: install without a network, upgrade, roll back; backup and restore.

No systemd runs there: that agents are restarted, and that all go back when one does not come up, is not shown here.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL, BACKUP = ROOT / "deploy" / "install.sh", ROOT / "deploy" / "backup.sh"
SECRET = "token of the test"


def run(*command: str | Path, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_FIND")}
    ended = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, timeout=900, env=environment, cwd=ROOT
    )
    assert ended.returncode == code, f"{command}: {ended.returncode}\n{ended.stdout[-1500:]}\n{ended.stderr[-3000:]}"
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `install.sh --wheels` takes: our wheel, and those that an agent needs, for Debian 12's Python."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT))
    (ours,) = folder.glob("fieldlab-*.whl")
    wanted = ["--only-binary=:all:", "--python-version=3.11", "--constraint", str(ROOT / "constraints.txt")]
    run(*pip, "download", "--dest", folder, *wanted, ours)
    return folder


@pytest.fixture(scope="module")
def system(require: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian 12, as small as its installer makes it."""
    bootstrap = require("debootstrap", "debootstrap")
    require("systemd-sysusers", "systemd")
    if os.geteuid() != 0:
        pytest.skip("needs root, as the script does")
    root = tmp_path_factory.mktemp("system") / "debian"
    run(bootstrap, "--variant=minbase", "--include=python3,python3-venv", "bookworm", root)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.timeout(1200)
def test_install_upgrade_roll_back_save_restore(system: Path, wheels: Path, tmp_path: Path) -> None:
    """One walk, because a Debian takes a minute to make."""
    opt = system / "opt" / "fieldlab"

    def install(*more: str, code: int = 0) -> str:
        return run(INSTALL, "--root", system, *more, code=code)

    def inside(*command: str) -> str:
        return run("chroot", system, *command)

    # install
    install("--wheels", str(wheels), "--extras", "")
    first = (opt / "current").readlink()
    assert inside("/opt/fieldlab/current/bin/fieldlab", "--version").strip()
    user = next(line for line in (system / "etc/passwd").read_text().splitlines() if line.startswith("fieldlab:"))
    assert user.endswith("/usr/sbin/nologin")
    data = (system / "var/lib/fieldlab").stat()
    assert (stat.S_IMODE(data.st_mode), data.st_uid) == (0o700, int(user.split(":")[2]))
    assert (system / "usr/lib/systemd/system/fieldlab-agent@.service").exists()
    assert not (opt / first / "parts").exists(), "what was needed to install is gone"

    # a failed upgrade changes nothing
    said = install("--wheels", str(tmp_path), "--extras", "", code=1)
    assert "nothing was changed" in said
    assert (opt / "current").readlink() == first
    assert [p.name for p in (opt / "releases").iterdir()] == [first.name]

    # upgrade, and back
    install("--wheels", str(wheels), "--extras", "")
    second = (opt / "current").readlink()
    assert second != first
    install("--rollback")
    assert (opt / "current").readlink() == first
    assert (opt / "previous").readlink() == second

    # an agent's data, saved and restored by the installed release's side
    etc, var = system / "etc/fieldlab/line-3", system / "var/lib/fieldlab/line-3"
    etc.mkdir(parents=True)
    var.mkdir()
    (etc / "fieldlab.toml").write_text('[agent]\nname = "line-3"\ndata = "/var/lib/fieldlab/line-3"\n')
    (etc / "influx-token").write_text(SECRET)
    (etc / "influx-token").chmod(0o600)
    (var / "journal.db").write_bytes(b"journal")
    os.chown(var / "journal.db", data.st_uid, data.st_gid)
    run(BACKUP, "--root", system, "save", "line-3", tmp_path)
    (file,) = tmp_path.glob("fieldlab-line-3-*.tar.gz")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (var / "journal.db").write_bytes(b"broken")
    said = run(BACKUP, "--root", system, "restore", "line-3", file)
    assert (var / "journal.db").read_bytes() == b"journal"
    assert (var / "journal.db").stat().st_uid == data.st_uid
    assert (etc / "influx-token").read_text() == SECRET
    assert stat.S_IMODE((etc / "influx-token").stat().st_mode) == 0o600
    (kept,) = var.parent.glob("line-3.before-*")
    assert (kept / "journal.db").read_bytes() == b"broken"

    # what is no backup is refused, and nothing is moved
    (tmp_path / "cut.tar.gz").write_bytes(file.read_bytes()[:-20])
    run(BACKUP, "--root", system, "restore", "line-3", tmp_path / "cut.tar.gz", code=1)
    run(BACKUP, "--root", system, "restore", "line-4", file, code=1)
    assert (var / "journal.db").read_bytes() == b"journal"


def test_wrong_usage_says_what_is_right() -> None:
    assert "unknown option" in run(INSTALL, "--frobnicate", code=2)
    assert "holds no system" in run(INSTALL, "--root", "/nowhere", code=1)
    assert "usage" in run(BACKUP, "destroy", code=2)
    assert "name the agent" in run(BACKUP, "save", "../etc", "/tmp", code=2)
