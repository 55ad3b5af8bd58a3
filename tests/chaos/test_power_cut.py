"""Power cuts at hundreds of moments, what was not synced lost, torn or reordered: what was acknowledged is there."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.model import Batch, MachineState, Place, RecordKind, SignalKey
from ingest.journal import Journal

APPENDS = 240
CUTS = 250
CUTS_OF_WEAK = 40  # of what loses something at nearly each
SECTOR = 512  # what a disk writes whole
WAYS = ("all lost", "all kept", "some kept", "torn", "a beginning kept")


def acknowledged(layer: Any, number: int, future: "Future[None]") -> None:
    if future.exception() is None:
        layer.note("", "ack", number)


def work(folder: Path, layer: Any, synchronous: str) -> None:
    """Append numbered readings; each acknowledgement takes its place among the operations on the files."""
    journal = Journal(folder / "journal.db")
    signals = [journal.signals.index(SignalKey.parse(f"site/area/line/machine/s{i}")) for i in range(2)]
    # The writing thread waits for its first work: nobody else uses its connection now.
    connection = journal._writer._database._db
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint=20")  # so that checkpoints, and a log that starts again, are among it
    chance = random.Random(1)
    for number in range(APPENDS):
        rows = np.full(2, number)
        batch = Batch.of(np.array(signals, np.uint32), rows + 1, rows.astype(float))
        future = journal.append(batch)
        future.add_done_callback(partial(acknowledged, layer, number))
        if chance.random() < 0.6:
            future.result(20)
        if number % 9 == 8:
            at = journal.position
            state = MachineState(time=at, place=Place("site", "area", "line", "machine"), state="x")
            journal.advance("count", at, rows=[state]).result(20)
        if number == APPENDS // 2:
            journal.execute(lambda db: db.execute("DELETE FROM meta WHERE key = 'created'")).result(20)
    journal.close()


class Disk:
    """The files as the disk has them: what was synced, and what has been asked for since."""

    def __init__(self) -> None:
        self.durable: dict[str, bytearray | None] = {}  # None: there is no such file
        self.pending: dict[str, list[Any]] = {}
        self.fresh: set[str] = set()  # logs whose first sync is also one of their folder, as SQLite's Unix layer has it

    def take(self, operation: Any) -> None:
        pending = self.pending.setdefault(operation.file, [])
        if operation.what == "sync":
            self.durable[operation.file] = self.settled(operation.file, pending)
            self.pending[operation.file] = []
            if operation.file in self.fresh:
                self.fresh.remove(operation.file)
                self.sync_folder()
        elif operation.what == "delete" and operation.offset:
            self.durable[operation.file] = None
            self.pending[operation.file] = []
        else:
            if operation.what == "open" and not operation.file.endswith(".db"):
                self.fresh.add(operation.file)
            pending.append(operation)

    def sync_folder(self) -> None:
        """Deletions so far are durable."""
        for file, pending in self.pending.items():
            deletions = [i for i, operation in enumerate(pending) if operation.what == "delete"]
            if deletions:
                self.durable[file], self.pending[file] = None, pending[deletions[-1] + 1 :]

    def settled(self, file: str, operations: list[Any]) -> bytearray | None:
        """A file's bytes after these operations on what is durable."""
        found = self.durable.get(file)
        content = None if found is None else bytearray(found)
        for operation in operations:
            if operation.what == "delete":
                content = None
                continue
            content = bytearray() if content is None else content
            if operation.what == "truncate":
                del content[operation.offset :]
                content.extend(bytes(max(0, operation.offset - len(content))))
            elif operation.what == "write":
                content.extend(bytes(max(0, operation.offset - len(content))))
                content[operation.offset : operation.offset + len(operation.data)] = operation.data
        return content

    def cut(self, way: str, chance: random.Random, folder: Path) -> None:
        """Write the files as they may be after the power came back."""
        for file in self.pending:
            content = self.settled(file, list(survivors(self.pending[file], way, chance)))
            if content is not None:
                (folder / Path(file).name).write_bytes(content)


def survivors(operations: list[Any], way: str, chance: random.Random) -> Iterator[Any]:
    if way == "all lost":
        return
    stop = chance.randrange(len(operations) + 1) if way == "a beginning kept" else len(operations)
    for operation in operations[:stop]:
        if way == "torn" and operation.what == "write":
            sectors = [i for i in range(0, len(operation.data), SECTOR) if chance.random() < 0.7]
            for i in sectors:
                yield operation._replace(offset=operation.offset + i, data=operation.data[i : i + SECTOR])
        elif way != "some kept" or chance.random() < 0.5:
            yield operation


def look(folder: Path, acked: set[int]) -> tuple[int, str]:
    """How many acknowledged numbers are lost, and what else is wrong with the journal, in words."""
    journal = Journal(folder / "journal.db")
    try:
        numbers: list[int] = []
        both: Counter[int] = Counter()
        results: list[int] = []
        position = 0
        while records := journal.read(position, frozenset(RecordKind)).records:
            for record in records:
                position = record.position
                results += [row.time for row in record.rows if isinstance(row, MachineState)]
                if record.batch is not None:
                    both.update(record.batch.value.astype(int).tolist())
                    numbers += record.batch.value[record.batch.signal == 0].astype(int).tolist()
        committed = journal.identity.totals(2)["committed"].tolist()
        count = journal.consumer("count")
        stats = journal.stats()
    finally:
        journal.close()
    newest = max(acked, default=-1)
    end = committed[0]  # those below the cursor are trimmed; the counts remember them
    if numbers != list(range(end - len(numbers), end)):
        return 0, f"not in order, once each: {numbers}, {end} committed"
    if set(both.values()) - {2} or committed[0] != committed[1]:
        return 0, "half a message is there"
    if stats.set_aside or stats.error:
        return 0, f"{stats}"
    if results and count is not None and count.position < results[-1]:
        return 0, f"results at {results[-1]}, cursor at {count.position}"
    return max(0, newest + 1 - end), ""


def cut_everywhere(operations: list[Any], folder: Path, seed: int, cuts: int) -> tuple[int, int, list[str]]:
    """Cut the power at so many moments: acknowledged in all, lost in all, and what else was wrong."""
    chance = random.Random(seed)
    moments = Counter(chance.choices(range(len(operations) + 1), k=cuts))
    disk, acked = Disk(), set[int]()
    sent = lost = 0
    wrong: list[str] = []
    for at, operation in enumerate([*operations, None]):
        for again in range(moments[at]):
            way = chance.choice(WAYS)
            after = folder / f"cut-{at}-{again}"
            after.mkdir()
            disk.cut(way, chance, after)
            missing, words = look(after, acked)
            sent, lost = sent + len(acked), lost + missing
            if words:
                wrong.append(f"cut before operation {at}, {way}: {words}")
        if operation is not None and operation.what == "ack":
            acked.add(operation.offset)
        elif operation is not None:
            disk.take(operation)
    return sent, lost, wrong


def recorded(folder: Path, file_layer: Callable[[], Any], synchronous: str) -> list[Any]:
    folder.mkdir()
    with file_layer() as layer:
        work(folder, layer, synchronous)
        operations: list[Any] = layer.operations
    kinds = Counter((Path(o.file).name, o.what) for o in operations)
    assert kinds["", "ack"] == APPENDS
    assert kinds["journal.db", "write"] > 30, "checkpoints are among it"
    return operations


def test_250_power_cuts_lose_nothing_that_was_acknowledged(
    tmp_path: Path, file_layer: Callable[[], Any], seed: int, tell: Callable[..., None]
) -> None:
    operations = recorded(tmp_path / "work", file_layer, "FULL")
    acknowledged, lost, wrong = cut_everywhere(operations, tmp_path, seed, CUTS)
    tell(cuts=CUTS, operations=len(operations), sent=APPENDS, acknowledged=acknowledged, lost=lost, wrong=len(wrong))
    assert not wrong, wrong[:3]
    assert lost == 0
    assert acknowledged > CUTS * APPENDS / 4, "there was something to lose"


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_a_sync_a_commit_the_same_cuts_do_lose(
    tmp_path: Path, file_layer: Callable[[], Any], seed: int, tell: Callable[..., None], synchronous: str
) -> None:
    """The setting that the journal pays for: weaker ones are seen to fail the test above."""
    operations = recorded(tmp_path / "work", file_layer, synchronous)
    acknowledged, lost, wrong = cut_everywhere(operations, tmp_path, seed, CUTS_OF_WEAK)
    tell(synchronous=synchronous, cuts=CUTS_OF_WEAK, acknowledged=acknowledged, lost=lost, wrong=len(wrong))
    assert lost > 0
