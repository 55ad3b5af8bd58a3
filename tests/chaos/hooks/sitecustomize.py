"""Faults inside a child process, before its own code runs: Python imports this where it is on PYTHONPATH.

CHAOS_KILL: `module:Class.method before|after N [name]`: SIGKILL to itself at the N-th call (whose first argument has
that `name`). CHAOS_NAMES: a JSON file, host name → address; other names below `.test` do not resolve.
CHAOS_CLOCK: a file of 8 bytes, the nanoseconds by which the clock is wrong, at each moment.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class _Deadly(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Wraps one method as soon as its module is there."""

    def __init__(self, where: str) -> None:
        target, self.when, number, *name = where.split()
        self.module, self.method = target.split(":")
        self.left, self.name = int(number), name[0] if name else ""
        self.inner: importlib.abc.Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        self.inner, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        assert self.inner is not None
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self.inner is not None
        self.inner.exec_module(module)
        owner = getattr(module, self.method.partition(".")[0])
        name = self.method.partition(".")[2]
        setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, call: Any) -> Any:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if not self.name or getattr(args[1], "name", "") == self.name:
                self.left -= 1
            if self.left == 0 and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


def _resolve_from(file: Path) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and name.endswith(".test"):
            known = json.loads(file.read_text("utf-8"))
            if name not in known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = known[name]
        return real(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def _clock_from(file: Path) -> None:
    with file.open("r+b") as handle:
        shared = mmap.mmap(handle.fileno(), 8)
    real = time.time_ns

    def wrong() -> int:
        return real() + int(struct.unpack_from("<q", shared)[0])

    time.time_ns = wrong
    time.time = lambda: wrong() / 1e9


if where := os.environ.get("CHAOS_KILL"):
    sys.meta_path.insert(0, _Deadly(where))
if names := os.environ.get("CHAOS_NAMES"):
    _resolve_from(Path(names))
if clock := os.environ.get("CHAOS_CLOCK"):
    _clock_from(Path(clock))
