"""Journals in temporary folders, closed with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fieldlab.model import SignalKey
from ingest.journal import Journal

Open = Callable[..., Journal]


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Open]:
    """Opens `journal.db` with the signals 0 to 4 in its table; call it again after a close."""
    opened: list[Journal] = []

    def open_it(**options: int) -> Journal:
        journal = Journal(tmp_path / "journal.db", **options)
        opened.append(journal)
        for i in range(5):
            journal.signals.index(SignalKey.parse(f"site/area/line/machine/s{i}"))
        return journal

    yield open_it
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal: Open) -> Journal:
    """A new journal."""
    return open_journal()
