"""What an agent is to its computer: the owner of a folder, and a user of memory."""

import contextlib
import ctypes
import fcntl
import os
from pathlib import Path
from typing import Any

from fieldlab.errors import RefusedError

_M_ARENA_MAX = -8  # malloc.h


def own(data: Path) -> Any:
    """Make the data folder, mode 0700, and lock it: one agent a folder.

    Raises:
        RefusedError: if another agent has it, or it cannot be made.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data / "lock").open("w")
    except OSError as e:
        raise RefusedError(f"the data folder {data} cannot be used: {e}") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RefusedError(f"another agent uses the data folder {data}; see `fieldlab status`") from None
    return lock


def share_memory_between_threads() -> None:
    """Have the C library keep two pools of memory rather than eight a processor; to be called before threads start.

    What one thread gives back stays with its pool: with many, memory creeps up for hours though nothing is leaked.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def resident_memory() -> int:
    """Bytes, from /proc; 0 where there is none."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
