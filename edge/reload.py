"""A new configuration for a running agent: when it is looked at, what it may change, and what it leaves alone.

What cannot be taken back is not done because a file was saved: a store that is gone loses its cursor, and an action
moves a machine. Such a change waits for a person's SIGHUP; everything else is applied as soon as the file rests.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.config import AgentConfig
from fieldlab.config import Document

FIXED: Final = ("name", "data", "http", "http_token_file", "max_series", "journal_max")
POLL: Final = 2.0  # seconds between two looks at the file; it must be the same twice: nobody is still writing it

Fingerprint = tuple[Any, ...]


def source_fingerprint(config: AgentConfig, index: int) -> Fingerprint:
    """What the source at `index` is made from: two that are equal are one and the same source."""
    source = config.sources[index]
    return (source.kind, source.config, config.source_context(index), tuple(_secrets(source.config)))


def store_fingerprint(config: AgentConfig, index: int) -> Fingerprint:
    """What the store at `index` is made from."""
    store = config.stores[index]
    return (store.kind, store.config, config.store_context(index), tuple(_secrets(store.config)))


def _secrets(table: Any) -> Iterator[str]:
    """A digest of each file that a table names by a key `*_file`: a new password is a change too."""
    for name, value in msgspec.structs.asdict(table).items():
        if name.endswith("_file") and isinstance(value, Path):
            yield digest(value)


def digest(path: Path) -> str:
    """A hash of a file's bytes; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def refuse_fixed(old: AgentConfig, new: AgentConfig) -> None:
    """Refuse a change of what an agent is.

    Raises:
        ConfigError: naming file, line and key.
    """
    for key in FIXED:
        if getattr(old.agent, key) != getattr(new.agent, key):
            words = "cannot change while the agent runs: restart it, or write it as it was"
            raise Document(new.file).error(words, f"agent.{key}")


def needs_a_person(old: AgentConfig, new: AgentConfig) -> str:
    """Why a change waits for SIGHUP; empty if it does not."""
    names = {new.store_context(i).name for i in range(len(new.stores))}
    gone = [name for i in range(len(old.stores)) if (name := old.store_context(i).name) not in names]
    reasons = [f"it removes the store {name}, whose cursor would be forgotten" for name in gone]
    if old.actions != new.actions:
        reasons.append("it changes what is done to machines ([[action]])")
    return " and ".join(reasons)


class Watcher:
    """Says when the configuration file is to be read again.

    Args:
        path: the file.
        auto: whether a changed file is enough; else SIGHUP only.

    Attributes:
        auto: as above; may change.
    """

    def __init__(self, path: Path, *, auto: bool) -> None:
        self.auto = auto
        self._path = path
        self._asked = asyncio.Event()
        self._known = self._last = digest(path)

    def ask(self) -> None:
        """A person asks for it (SIGHUP), whether the file has changed or not."""
        self._asked.set()

    async def next(self) -> bool:
        """Wait until the file is to be read; whether a person asked."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), POLL)
            found = await asyncio.to_thread(digest, self._path)
            rests, self._last = found == self._last, found
            if self._asked.is_set():
                self._asked.clear()
                self._known = found
                return True
            if self.auto and rests and found != self._known:
                self._known = found
                return False
