"""The judge over a real journal: configurations, snapshots of other versions, judgements that break."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.engine import Engine
from edge.judge import NAME, Judge
from fieldlab.model import Batch, RecordKind, SignalInfo, SignalKey, Verdict
from ingest.journal import Journal

LOAD = SignalKey.parse("drachten/shavers/3/cnc-07/load")
PART = SignalKey.parse("drachten/shavers/3/cnc-07/part")
SECOND = 1_000_000_000
START = 1_763_900_000 * SECOND
CONFIG = AnalyticsConfig(charts=(ChartConfig(name="c", signals=("cnc-07/load",), per="reading", baseline=10),))
PARTS = AnalyticsConfig(parts=(PartConfig(machine="cnc-07", counter="part"),))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    for key in (LOAD, PART):
        made.signals.index(key)
    yield made
    made.close()


def judge_all(judge: Judge) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        async with asyncio.timeout(30):
            await judge.configure()
            await judge.run(stop)

    asyncio.run(main())


def readings(journal: Journal, start: int, count: int) -> None:
    noise = np.random.default_rng(start)
    times = START + np.arange(start, start + count) * SECOND
    journal.append(Batch.of([0] * count, times, noise.normal(size=count))).result()


def rows(journal: Journal, kind: RecordKind) -> list[Any]:
    return [row for record in journal.read(0, frozenset({kind})).records for row in record.rows]


def test_a_configuration_is_written_once(journal: Journal) -> None:
    for _ in range(3):
        judge_all(Judge(journal, CONFIG))
    assert len(rows(journal, RecordKind.CONTROL)) == 1
    judge_all(Judge(journal, PARTS))
    assert len(rows(journal, RecordKind.CONTROL)) == 2


def test_the_newest_configuration_wins_also_over_one_that_was_not_yet_judged(journal: Journal) -> None:
    judge_all(Judge(journal, CONFIG))
    crashed = Judge(journal, PARTS)
    asyncio.run(crashed.configure())  # in the journal, and then kill -9
    back = Judge(journal, CONFIG)
    judge_all(back)
    assert back._engine.config.charts == CONFIG.charts


def test_a_snapshot_of_another_version_starts_afresh(journal: Journal) -> None:
    first = Judge(journal, CONFIG)
    readings(journal, 0, 100)
    judge_all(first)
    old = msgspec.msgpack.encode({"version": -1})
    position = journal.position
    journal.advance(NAME, position, keep_from=position, state=old).result()
    judge = Judge(journal, CONFIG)
    readings(journal, 100, 50)
    judge_all(judge)
    assert judge.error == ""
    assert judge.status().lag_records == 0
    assert judge._engine.config.charts == CONFIG.charts


def test_a_judgement_that_breaks_says_so_and_keeps_its_place(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_all(Judge(journal, CONFIG))
    judge = Judge(journal, CONFIG)
    before = judge.status().position
    readings(journal, 0, 100)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of the test")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "fold", broken)
        judge_all(judge)
        assert "of the test" in judge.error
        assert judge.status().position == before
        assert judge.status().error == judge.error
    again = Judge(journal, CONFIG)
    judge_all(again)
    assert again.error == ""
    assert again.status().lag_records == 0


def test_a_part_is_judged_by_what_the_journal_said_before_it(journal: Journal) -> None:
    judge = Judge(journal, PARTS)
    judge_all(judge)

    def part(number: int, load: float) -> None:
        at = START + number * 10 * SECOND
        journal.append(Batch.of([1, 0], [at, at + SECOND], [float(number), load])).result()

    part(0, 5.0)
    journal.write([SignalInfo(key=LOAD, unit="%", usl=10.0)]).result()
    for number in range(1, 4):
        part(number, 20.0)
    journal.write([SignalInfo(key=LOAD, unit="%", usl=30.0)]).result()
    for number in range(4, 8):
        part(number, 20.0)
    cut = Judge(journal, PARTS)  # nothing judged yet: as after a crash
    judge_all(cut)
    verdicts = {v.id: v.verdict for v in rows(journal, RecordKind.PART) if isinstance(v, Verdict)}
    assert verdicts["cnc-07-1"] == "fail"  # part 2 ends within `lateness` of the new limits: they judge it
    assert [verdicts[f"cnc-07-{n}"] for n in (4, 5)] == ["pass", "pass"]


def test_a_broken_judgement_lets_go_of_a_full_journal_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sources go on: what is not judged is counted, and the stores have it."""
    journal = Journal(tmp_path / "full.db", max_bytes=600_000)
    journal.signals.index(LOAD)
    judge_all(Judge(journal, CONFIG))
    judge = Judge(journal, CONFIG)
    sent = 200_000

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of the test")

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(judge.wake)

        journal.add_listener(wake)
        running = asyncio.create_task(judge.run(stop))
        async with asyncio.timeout(60):
            for start in range(0, sent, 5_000):
                times = START + np.arange(start, start + 5_000)
                kept = journal.append(Batch.of([0] * 5_000, times, np.random.default_rng(start).normal(size=5_000)))
                while not kept.done():  # ticks go on, as an agent's do, and wake it
                    await asyncio.wrap_future(journal.tick(START))
            stop.set()
            judge.wake()
            await running

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "fold", broken)
        asyncio.run(main())
    assert journal.identity.totals(1)["committed"].tolist() == [sent]
    assert "of the test" in judge.error
    assert f"{judge.not_judged} readings were not judged" in judge.error
    assert 0 < judge.not_judged <= sent
    journal.close()
    journal = Journal(tmp_path / "full.db", max_bytes=600_000)
    again = Judge(journal, CONFIG)
    judge_all(again)
    assert (again.error, again.status().lag_records) == ("", 0)
    journal.close()
