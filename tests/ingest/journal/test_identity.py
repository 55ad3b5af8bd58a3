import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldlab.model import Batch, BatchBuilder, concat
from ingest.journal import identity as module
from ingest.journal.format import Extras
from ingest.journal.identity import WINDOW, Delivery, Identity, Part

SILENT = (None, 0x80310000)  # BadNoCommunication
heavy = settings(deadline=None, max_examples=50)  # each window of messages is a megabyte
LAST = 2**63 - 1
FIRST = -(2**63)
TIMES = st.integers(0, 6) | st.sampled_from([FIRST, FIRST + 1, LAST - 1, LAST])
VALUES = st.sampled_from([0.0, 1.0, None, "", "a", 2**60, 2**60 + 1, 2**63 - 1])
READINGS = st.lists(
    st.tuples(st.integers(0, 3), TIMES, VALUES, st.sampled_from([0, 0, 0x40000000, 0x80310000])), max_size=12
)
MESSAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans(), READINGS), max_size=4)


@dataclasses.dataclass
class Step:
    batch: Batch
    parts: list[Part]
    overflow: dict[int, int]


def delivery(session: str, messages: list[tuple[int, int, bool]], first_row: list[int]) -> Delivery:
    return Delivery(
        session,
        np.array([i for i, _, _ in messages], np.uint16),
        np.array([h for _, h, _ in messages], np.uint64),
        np.array([r for _, _, r in messages], np.bool_),
        np.array(first_row, np.uint32),
    )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    builder = BatchBuilder()
    parts = []
    for session in draw(st.lists(st.sampled_from(["a", "b"]), max_size=3)):
        start = len(builder)
        for reading in draw(st.just([]) | READINGS):  # rows of no message
            builder.add(*reading)
        heads, rows = [], []
        for number, digest, redelivered, readings in draw(MESSAGES):
            heads.append((number, digest, redelivered))
            rows.append(len(builder) - start)
            for reading in readings:
                builder.add(*reading)
        parts.append(Part(delivery(session, heads, rows), start, len(builder)))
    for reading in draw(READINGS):
        builder.add(*reading)
    return Step(builder.build(), parts, draw(st.dictionaries(st.integers(0, 5), st.integers(0, 9), max_size=2)))


def totals(identity: Identity) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in identity.totals(6).items()}


@heavy
@given(st.lists(steps(), max_size=5), st.data())
def test_replaying_what_was_appended_gives_the_same_state(given: list[Step], data: st.DataObject) -> None:
    live, folded = Identity(), Identity()
    for step in given:
        folded.replay(*live.decide(step.batch, step.parts, step.overflow))
        assert folded.snapshot() == live.snapshot()
        if data.draw(st.booleans()):
            folded = Identity.restore(folded.snapshot())
        if data.draw(st.booleans()):
            live = Identity.restore(live.snapshot())
        assert totals(folded) == totals(live)


@heavy
@given(st.lists(steps(), max_size=5))
def test_received_is_committed_and_duplicate_and_rejected(given: list[Step]) -> None:
    identity = Identity()
    received: collections.Counter[int] = collections.Counter()
    committed: collections.Counter[int] = collections.Counter()
    bad: collections.Counter[int] = collections.Counter()
    lost: collections.Counter[int] = collections.Counter()
    for step in given:
        kept, _ = identity.decide(step.batch, step.parts, step.overflow)
        kept.check()
        received.update(step.batch.signal.tolist())
        committed.update(kept.signal.tolist())
        bad.update(kept.signal[kept.status >= 0x80000000].tolist())
        lost.update(step.overflow)
    found = totals(identity)
    for name, counter in (("received", received), ("committed", committed), ("bad", bad), ("overflow", lost)):
        assert found[name] == [counter[i] for i in range(6)]
    duplicate, rejected = np.array(found["duplicate"]), np.array(found["rejected"])
    assert (np.array(found["received"]) == np.array(found["committed"]) + duplicate + rejected).all()


@heavy
@given(st.lists(READINGS, max_size=5))
def test_identity_one_reading_at_a_time(given: list[list[tuple[int, int, float | str | None, int]]]) -> None:
    """Against the words of README.md, in plain Python."""
    newest: dict[int, tuple[int, int, object]] = {}  # signal → stored, given, what
    held: dict[int, tuple[int, object]] = {}  # given and what, of the reading before a loss
    identity = Identity()
    for readings in given:
        builder = BatchBuilder()
        expected = []
        for signal, time, value, status in readings:
            builder.add(signal, time, value, status)
            bad = status >= 0x80000000
            what = (None if bad else value, 0x803C0000 if value is None and not bad else status)
            if signal in newest:
                stored, as_given, before = newest[signal]
                if time < as_given:
                    if before != SILENT or held.get(signal) != (time, what):
                        expected.append((signal, time))
                    if before == SILENT and time >= held.get(signal, (FIRST, None))[0]:
                        held[signal] = (time, what)  # the machine's newest, though the loss was told later
                    continue
                if time == as_given and what == before:
                    continue
                at = max(time, min(stored + 1, LAST))
            else:
                at = max(time, FIRST + 1)  # the very first nanosecond means never
            if what == SILENT and signal in newest and newest[signal][2] != SILENT:
                held[signal] = newest[signal][1:]
            newest[signal] = (at, time, what)
            expected.append((signal, at))
        kept, extras = identity.decide(builder.build())
        assert list(zip(kept.signal.tolist(), kept.time.tolist(), strict=True)) == expected
        back = kept.time.copy()
        back[extras.moved_row] -= extras.moved_by
        assert set(zip(kept.signal.tolist(), back.tolist(), strict=True)) <= {(s, t) for s, t, _, _ in readings}


@heavy
@given(st.lists(READINGS, max_size=5))
def test_readings_in_order_never_share_a_time(given: list[list[tuple[int, int, float | str | None, int]]]) -> None:
    identity = Identity()
    newest: dict[int, int] = {}
    stored: dict[int, set[int]] = {}
    for readings in given:
        builder = BatchBuilder()
        for reading in sorted(readings, key=lambda reading: reading[1]):
            if reading[1] != LAST and reading[1] >= newest.get(reading[0], FIRST):
                newest[reading[0]] = reading[1]
                builder.add(*reading)
        kept, _ = identity.decide(builder.build())
        for signal, time in zip(kept.signal.tolist(), kept.time.tolist(), strict=True):
            assert time not in stored.setdefault(signal, set()) or time == LAST
            stored[signal].add(time)


@heavy
@given(st.lists(steps(), min_size=1, max_size=5))
def test_deciding_together_is_deciding_one_after_the_other(given: list[Step]) -> None:
    apart, together = Identity(), Identity()
    kept = [apart.decide(step.batch, step.parts, step.overflow)[0] for step in given]
    starts = np.cumsum([0, *(len(step.batch) for step in given)]).tolist()
    parts = [
        Part(part.delivery, part.start + start, part.stop + start)
        for step, start in zip(given, starts, strict=False)
        for part in step.parts
    ]
    overflow: collections.Counter[int] = collections.Counter()
    for step in given:
        overflow.update(step.overflow)
    batch, _ = together.decide(concat([step.batch for step in given]), parts, overflow)
    assert batch.time.tolist() == concat(kept).time.tolist()
    assert batch.text == concat(kept).text
    assert totals(apart) == totals(together)
    assert apart.snapshot() == together.snapshot()


def one(identity: Identity, number: int, digest: int, *, redelivered: bool, time: int) -> int:
    """Readings kept of a message with one reading."""
    batch = Batch.of([0], [time], [float(time)])
    return len(identity.decide(batch, [Part(delivery("s", [(number, digest, redelivered)], [0]), 0, 1)])[0])


def test_a_redelivered_message_is_known_also_after_a_restart() -> None:
    identity = Identity()
    assert one(identity, 7, 1, redelivered=False, time=5) == 1
    assert one(identity, 8, 2, redelivered=False, time=6) == 1
    identity = Identity.restore(identity.snapshot())
    assert one(identity, 7, 1, redelivered=True, time=5) == 0
    assert totals(identity)["duplicate"][0] == 1
    assert one(identity, 7, 99, redelivered=True, time=7) == 1, "another payload under that id"
    assert one(identity, 7, 99, redelivered=False, time=8) == 1, "not marked as a redelivery"


def test_a_message_and_its_redelivery_in_one_batch() -> None:
    batch = Batch.of([0, 0, 0, 0], [1, 2, 1, 2], [1.0, 2.0, 1.0, 2.0])
    kept, _ = Identity().decide(batch, [Part(delivery("s", [(7, 1, False), (7, 1, True)], [0, 2]), 0, 4)])
    assert kept.time.tolist() == [1, 2]


def test_an_id_used_again_beside_a_redelivered_message_is_kept() -> None:
    identity = Identity()
    one(identity, 7, 1, redelivered=False, time=5)
    one(identity, 8, 2, redelivered=False, time=6)
    both = Batch.of([0, 0], [7, 8], [7.0, 8.0])
    kept, _ = identity.decide(both, [Part(delivery("s", [(7, 1, False), (8, 2, True)], [0, 1]), 0, 2)])
    assert kept.time.tolist() == [7]


def test_messages_without_readings_are_remembered() -> None:
    identity = Identity()
    _batch, extras = identity.decide(Batch.of([], [], []), [Part(delivery("s", [(7, 1, False)], [0]), 0, 0)])
    assert [m.ids.tolist() for m in extras.messages] == [[7]]
    assert one(identity, 7, 1, redelivered=True, time=1) == 0


@pytest.mark.parametrize(("behind", "known"), [(WINDOW - 1, True), (WINDOW, False)])
@pytest.mark.parametrize("restart", [False, True])
def test_the_window_is_exactly_as_long_as_it_says(behind: int, known: bool, restart: bool) -> None:
    identity = Identity()
    readings = Batch.of([0, 0], [1, 2], [1.0, 2.0])
    identity.decide(readings, [Part(delivery("s", [(65_535, 1, False)], [0]), 0, 2)])
    later = [(i, 5, False) for i in range(behind)]
    identity.decide(Batch.of([], [], []), [Part(delivery("s", later, [0] * behind), 0, 0)])
    if restart:
        identity = Identity.restore(identity.snapshot())
    kept, _ = identity.decide(readings, [Part(delivery("s", [(65_535, 1, True)], [0]), 0, 2)])
    assert len(kept) == (0 if known else 1)  # an unknown one is appended again, but for the exact repeat of the newest


def test_what_a_machine_tells_again_after_a_loss_is_a_duplicate() -> None:
    """Its last reading is before the status that says that it was not heard: the same point is not committed twice."""
    identity = Identity()
    lost = Batch.of([0], [50], [np.nan], [0x80310000])
    for batch in (Batch.of([0, 1], [10, 10], [1.0, 1.0]), lost):
        identity.decide(batch)
    for known in (identity, Identity.restore(identity.snapshot())):
        kept, _ = known.decide(Batch.of([0, 0, 0], [9, 10, 20], [1.0, 1.0, 2.0]))
        assert (kept.time.tolist(), kept.value.tolist()) == ([9, 20], [1.0, 2.0])
        kept, _ = known.decide(Batch.of([0, 0], [20, 20], [2.0, 3.0]))
        assert kept.value.tolist() == [3.0], "only what is the same in all"
        assert known.column("duplicate")[0] == 2
        kept, _ = known.decide(Batch.of([0, 0], [60, 10], [3.0, 1.0]))
        assert kept.time.tolist() == [60, 10], "later on it is a late reading like any other"


def test_a_damaged_state_is_noticed() -> None:
    identity = Identity()
    one(identity, 1, 1, redelivered=False, time=5)
    data = bytearray(identity.snapshot())
    for at in range(0, len(data), 7):
        bent = bytearray(data)
        bent[at] ^= 1
        with pytest.raises(ValueError, match="CRC32C"):
            Identity.restore(bytes(bent))


def test_a_huge_overflow_does_not_wrap_around() -> None:
    _, extras = Identity().decide(Batch.of([], [], []), (), {0: 2**40})
    assert extras.counts.tolist() == [[0, 0, 0, 2**32 - 1]]


def test_totals_have_the_asked_length() -> None:
    identity = Identity()
    identity.decide(Batch.of([2], [1], [1.0]))
    assert identity.totals(2)["received"].tolist() == [0, 0]
    assert identity.totals(5)["received"].tolist() == [0, 0, 1, 0, 0]
    assert Extras().counts.shape == (0, 4)
    assert set(identity.totals(0)) == set(module._COLUMNS)
