"""A forwarder: tries for ever, ends when asked, counts exactly; and the thread that its store's calls run in."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fieldlab.model import Batch, Record, SignalKey
from ingest.forwarder import Counts, Forwarder
from ingest.journal import Journal
from ingest.stores.base import QUERYABLE, DeadLetter, StoreMisconfiguredError, StoreUnavailableError
from ingest.worker import Worker

KEYS = [SignalKey.parse(f"drachten/shavers/3/cnc-07/{name}") for name in ("load", "poison")]


class Script:
    """A store that does what `answer` says before it keeps the records."""

    name = "script"
    kinds = QUERYABLE

    def __init__(self) -> None:
        self.answer: Callable[[], Sequence[DeadLetter]] = list
        self.calls = 0
        self.resent = threading.Event()
        self.values: list[float] = []

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        self.calls += 1
        letters = self.answer()
        self.values += [v for r in records if r.batch is not None for v in r.batch.value.tolist()]
        return letters

    def resend(self, letter: DeadLetter) -> Sequence[DeadLetter]:
        del letter
        self.resent.set()
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    for key in KEYS:
        made.signals.index(key)
    yield made
    made.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test")
    yield made
    made.shutdown()


def batch(first: int, count: int, signal: int = 0) -> Batch:
    return Batch.of(
        [signal] * count, np.arange(first, first + count) * 1_000, np.arange(first, first + count, dtype=float)
    )


def letter(signal: int, readings: int) -> DeadLetter:
    return DeadLetter(
        store="script", machine="m", signal="poison", readings=readings, reason="no", first=0, last=1, body=b"",
        counts={signal: readings},
    )  # fmt: skip


async def drain(forwarder: Forwarder) -> None:
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(30):
        await forwarder.run(stop)


def test_a_refusal_ends_a_stopping_forwarder_and_loses_nothing(journal: Journal, worker: Worker) -> None:
    store = Script()

    def refuse() -> list[DeadLetter]:
        raise StoreMisconfiguredError("401", retry_after=3600)

    store.answer = refuse
    journal.append(batch(0, 10)).result()
    forwarder = Forwarder(journal, store, worker)

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(forwarder.run(stop))
        async with asyncio.timeout(30):
            while not forwarder.error:  # noqa: ASYNC110  the worker's thread sets it
                await asyncio.sleep(0.01)
            stop.set()  # in the middle of an hour's pause
            await running

    asyncio.run(main())
    assert store.calls == 2, "one last try"
    assert forwarder.status().lag_readings == 10
    assert forwarder.status().error == "401"
    store.answer = list
    again = Forwarder(journal, store, worker)
    asyncio.run(drain(again))
    assert store.values == [float(i) for i in range(10)]
    assert again.counts.stored.tolist() == [10]
    assert again.status().lag_records == 0


def test_counts_are_the_same_after_a_crash_at_any_write(journal: Journal, worker: Worker) -> None:
    """Letters come with the counts; what followed them is counted again."""
    store = Script()
    journal.append(batch(0, 10)).result()
    journal.append(batch(0, 4, signal=1)).result()
    store.answer = lambda: [letter(1, 3)]
    asyncio.run(drain(first := Forwarder(journal, store, worker)))
    assert (first.counts.stored.tolist(), first.counts.dead.tolist()) == ([10, 1], [0, 3])
    store.answer = list
    for i in range(3):
        journal.append(batch(100 + 10 * i, 10)).result()
        chunk = journal.read(journal.consumer("script").position, store.kinds)  # type: ignore[union-attr]  # it is registered
        journal.advance("script", chunk.upto).result()  # written, and no checkpoint since
        crashed = Forwarder(journal, store, worker)
        assert crashed.counts.stored.tolist() == [20 + 10 * i, 1]
        assert crashed.counts.dead.tolist() == [0, 3]


def test_a_dead_letter_sent_again_in_the_middle_of_a_write(journal: Journal, worker: Worker) -> None:
    """Neither the counts nor the cursor go wrong."""
    store = Script()
    journal.append(batch(0, 4, signal=1)).result()
    store.answer = lambda: [letter(1, 4)]
    forwarder = Forwarder(journal, store, worker)
    asyncio.run(drain(forwarder))
    writing, go = threading.Event(), threading.Event()

    def slowly() -> list[DeadLetter]:
        writing.set()
        assert go.wait(20)
        return []

    store.answer = slowly
    journal.append(batch(0, 10)).result()

    async def main() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(forwarder.run(stop))
        async with asyncio.timeout(30):
            await asyncio.to_thread(writing.wait)
            resent = asyncio.create_task(forwarder.resend(letter(1, 4), lambda db: None))
            commit = threading.Event()
            journal.execute(lambda _: commit.wait(20))  # a slow disk: the write's own move is not yet committed
            go.set()
            await asyncio.to_thread(store.resent.wait)
            for _ in range(20):
                await asyncio.sleep(0)
            commit.set()
            await resent
            journal.write().result()  # behind every move
            running.cancel()  # kill -9

    asyncio.run(main())
    assert (forwarder.counts.stored.tolist(), forwarder.counts.dead.tolist()) == ([10, 4], [0, 0])
    again = Forwarder(journal, store, worker)
    assert (again.counts.stored.tolist(), again.counts.dead.tolist()) == ([10, 4], [0, 0])
    assert again.status().lag_records == 0
    assert store.calls == 2


def test_outages_are_survived_in_order(journal: Journal, worker: Worker) -> None:
    store = Script()
    failures = iter([True, False, True, True, False])

    def sometimes() -> list[DeadLetter]:
        if next(failures, False):
            raise StoreUnavailableError("away", retry_after=0.01)
        return []

    store.answer = sometimes
    forwarder = Forwarder(journal, store, worker)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(forwarder.wake)

        journal.add_listener(wake)
        running = asyncio.create_task(forwarder.run(stop))
        async with asyncio.timeout(30):
            for i in range(5):
                await asyncio.wrap_future(journal.append(batch(i * 10, 10)))
            while len(store.values) < 50:  # noqa: ASYNC110  the worker's thread fills it
                await asyncio.sleep(0.01)
            stop.set()
            forwarder.wake()
            await running

    asyncio.run(main())
    assert store.values == [float(i) for i in range(50)]
    assert forwarder.error == ""
    assert forwarder.counts.stored.tolist() == [50]


def test_counts_outlive_their_bytes() -> None:
    counts = Counts()
    counts.add([Record(1, next(iter(QUERYABLE)), 0, batch(0, 3, signal=1))], [letter(0, 2)])
    again = Counts(counts.snapshot())
    assert again.stored.tolist() == [-2, 3]
    assert again.dead.tolist() == [2, 0]


def test_a_worker_runs_one_call_after_the_other() -> None:
    worker = Worker("one")
    seen: list[int] = []
    futures = [worker.submit(seen.append, i) for i in range(100)]
    failed = worker.submit(int, "x")
    names = worker.submit(threading.current_thread)
    assert [f.result(10) for f in futures] == [None] * 100
    assert seen == list(range(100))
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result(10)
    assert names.result(10).name == "one"
    assert names.result(10).daemon, "a call that hangs does not hold the end of the process"
    worker.shutdown()
    with pytest.raises(RuntimeError):
        worker.submit(int)
