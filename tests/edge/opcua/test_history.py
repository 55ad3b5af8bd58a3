"""History of a server that we did not write: every value once, exactly as a live reading has it."""

import asyncio
import contextlib
import datetime as dt
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.opcua import history
from edge.sources.opcua.browse import CallLimits
from edge.sources.opcua.history import Answer, HistoryLimits, reaches, read_limits, read_raw, readable
from edge.sources.opcua.link import Link, open_link
from edge.sources.opcua.refill import Refill, apart, in_calls
from fieldlab.model import Batch, BatchBuilder, Gap, Place, SignalKey

T = TypeVar("T")
KEPT = 100_000
DOUBLE = {"type": "Double", "value": 0, "history": KEPT}
NEVER, FOREVER = 1_600_000_000_000_000_000, 2_500_000_000_000_000_000


def ask(server: Any, table: Any, context: Any, question: Callable[[Link], Awaitable[T]]) -> T:
    """What a client of the server finds."""

    async def run() -> T:
        link = await open_link(table(server, ["a"]), context, lambda _: None)
        try:
            return await question(link)
        finally:
            await link.close(keep_subscriptions=False, within=2)

    return asyncio.run(run())


def node(server: Any, name: str) -> ua.NodeId:
    return ua.NodeId(server.prefix + name, ua.Int16(2))


async def read_all(link: Link, nodes: dict[int, ua.NodeId], limits: HistoryLimits, **span: int) -> list[Answer]:
    async with contextlib.aclosing(
        read_raw(link.session, nodes, span.get("start", NEVER), span.get("end", FOREVER), limits)
    ) as answers:
        return [answer async for call in answers for answer in call]


def readings(answers: list[Answer]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for answer in answers:
        if answer.columns is not None:
            batch = answer.columns.batch
            texts = batch.texts()
            integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
            for row, (handle, time, value, status) in enumerate(
                zip(
                    batch.signal.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True
                )
            ):
                known: Any = texts.get(row, integers.get(row, value))
                found[handle, time, None if known != known else known, status] += 1
    return found


def test_history_is_read_as_it_was_produced_through_continuation_points(interop: Any, table: Any, context: Any) -> None:
    names = ["a", "b", "c", "d"]
    server = interop(variables=dict.fromkeys(names, DOUBLE), historyNodes=3, historyValues=7)
    server.ask("burst", names=names, rounds=40, every=1, type="Double")
    server.ask("set", name="d", type="Double", value=1.5, status="BadSensorFailure")

    async def question(link: Link) -> list[Answer]:
        limits = await read_limits(link.session)
        assert limits == HistoryLimits(3, 7)
        nodes = {h: node(server, name) for h, name in enumerate(names)}
        found = []
        for handles in ([0, 1, 2], [3]):
            found += await read_all(link, {h: nodes[h] for h in handles}, limits)
        return found

    answers = ask(server, table, context, question)
    assert len(answers) == 4 * 6, "41 or 42 values, seven at a time"
    expected = Counter(
        (names.index(n), t, None if status else float(v), status) for n, t, v, status in server.produced()
    )
    assert readings(answers) == expected
    assert server.ask("continuations") == {"open": 0}


def test_every_type_comes_as_a_live_reading(shared: Any, table: Any, context: Any) -> None:
    values: dict[str, tuple[str, list[Any]]] = {
        "a": ("Double", [0.25, 1.5]), "wide": ("Int64", ["-9007199254740993", "42"]),
        "text": ("String", ["", "tool 12 °"]), "flag": ("Boolean", [True, False]),
        "array": ("Double", [[1.0, 2.0], [3.0, 4.0]]),
    }  # fmt: skip
    server = shared({n: {"type": kind, "value": v[0], "history": KEPT} for n, (kind, v) in values.items()})
    for name, (kind, (_, second)) in values.items():
        server.ask("set", name=name, type=kind, value=second)
    names = list(values)

    async def question(link: Link) -> list[Answer]:
        return await read_all(link, {h: node(server, n) for h, n in enumerate(names)}, HistoryLimits())

    times = {n: [t for m, t, *_ in server.produced() if m == n] for n in names}
    found = readings(ask(server, table, context, question))
    wide = [-9007199254740993, 42.0]
    assert {k[1:3] for k in found if k[0] == 0} == set(zip(times["a"], [0.25, 1.5], strict=True))
    assert {k[1:3] for k in found if k[0] == 1} == set(zip(times["wide"], wide, strict=True))
    assert {k[1:3] for k in found if k[0] == 2} == set(zip(times["text"], ["", "tool 12 °"], strict=True))
    assert {k[1:3] for k in found if k[0] == 3} == set(zip(times["flag"], [1.0, 0.0], strict=True))
    assert {k[2] for k in found if k[0] == 4} == {1.0, 2.0, 3.0, 4.0}
    assert sum(found.values()) == 12


def test_continuation_points_are_given_back_when_reading_is_broken_off(shared: Any, table: Any, context: Any) -> None:
    server = shared({"a": DOUBLE, "b": DOUBLE})
    server.ask("burst", names=["a", "b"], rounds=50, every=1, type="Double")

    async def question(link: Link) -> dict[str, Any]:
        answers = read_raw(
            link.session, {0: node(server, "a"), 1: node(server, "b")}, NEVER, FOREVER, HistoryLimits(2, 5)
        )
        async with contextlib.aclosing(answers):
            async for call in answers:
                assert all(answer.more for answer in call)
                assert server.ask("continuations") == {"open": 2}
                break
        await asyncio.sleep(0)
        found: dict[str, Any] = server.ask("continuations")
        return found

    assert ask(server, table, context, question) == {"open": 0}


def test_what_cannot_be_read_is_known_before_and_told_after(shared: Any, table: Any, context: Any) -> None:
    server = shared({"a": DOUBLE, "b": {"type": "Double", "value": 1}})
    first = server.produced("a")[0][1]

    async def question(link: Link) -> Any:
        nodes = [node(server, "a"), node(server, "b"), node(server, "nowhere")]
        refused = await read_all(link, dict(enumerate(nodes[1:])), HistoryLimits())
        there = [await reaches(link.session, nodes[0], at) for at in (first + 10**9, first, first - 10**9)]
        return await readable(link.session, nodes, CallLimits()), [a.status & 0x80000000 for a in refused], there

    may, refused, there = ask(server, table, context, question)
    assert may == [True, False, False]
    assert all(refused)
    assert there == [True, True, False]


def response(values: list[ua.DataValue], status: int = 0) -> bytes:
    data = ua.HistoryData(DataValues=values)
    answer = ua.HistoryReadResponse()
    answer.Results = [ua.HistoryReadResult(StatusCode=ua.StatusCode(ua.UInt32(status)), HistoryData=data)]
    return struct_to_binary(answer)


def value(number: float, status: int, second: int) -> ua.DataValue:
    when = ua.DateTime.fromtimestamp(second, dt.UTC)
    return ua.DataValue(
        ua.Variant(ua.Double(number), ua.VariantType.Double), ua.StatusCode(ua.UInt32(status)), SourceTimestamp=when
    )


def test_only_raw_values_are_taken_and_lose_what_only_history_says() -> None:
    values = [
        value(1.0, 0x00000400, 1),  # raw
        value(2.0, 0x00000401, 2),  # calculated
        value(3.0, 0x00000402, 3),  # interpolated
        value(4.0, 0x40900408, 4),  # raw and Uncertain, with extra data
        value(5.0, 0x00000500, 5),  # raw, at its low limit
        value(6.0, 0x809B0000, 6),  # BadNoData: a hole
    ]
    body = response(values)
    (part,) = history._results(body, 1)
    answer = history._answer(body, 7, part)
    assert answer.columns is not None
    batch = answer.columns.batch
    assert batch.value.tolist() == [1.0, 4.0, 5.0]
    assert batch.status.tolist() == [0, 0x40900000, 0x00000500]
    assert batch.signal.tolist() == [7, 7, 7]
    assert (answer.not_raw, answer.hole) == (2, True)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_broken_answer_is_an_error_and_nothing_else(noise: bytes, at: int) -> None:
    body = bytearray(response([value(1.0, 0, 1), value(2.0, 0, 2)]))
    at %= len(body)
    body[at : at + len(noise)] = noise
    with contextlib.suppress(ua.uaerrors.UaError):
        for part in history._results(bytes(body), 1):
            history._answer(bytes(body), 0, part)


# ---- one gap ----


def gap(start: int, end: int, **more: Any) -> Gap:
    key = SignalKey(Place("a", "b", "c", "d"), "s")
    return Gap(time=start, key=key, agent="x", cause="source_down", id="g", state="ended", end=end, **more)


def refill(start: int, end: int, known: tuple[int, ...] = (), **more: Any) -> Refill:
    return Refill(gap(start, end, **more), 0, 3, 0, np.array(known, np.int64))


def batch(*times: int, signal: int = 3) -> Batch:
    return Batch.of([signal] * len(times), list(times), [float(t) for t in times])


MS = 1_000_000


def test_what_the_journal_has_is_not_taken_again() -> None:
    one = refill(10 * MS, 90 * MS, known=(40 * MS, 90 * MS))
    new = one.take(batch(10 * MS, 20 * MS, 40 * MS, 50 * MS, 90 * MS, 95 * MS))
    assert new.time.tolist() == [20 * MS, 50 * MS]
    one.commit(new)
    assert one.take(batch(20 * MS, 50 * MS, 60 * MS, 90 * MS)).time.tolist() == [60 * MS], "a later try goes on"
    assert one.recovered == 2
    assert not one.why_not()
    assert not len(one.take(batch(30 * MS, signal=4)))


@pytest.mark.parametrize(
    ("times", "why", "rests"),
    [
        ((10, 20, 90), "", []),
        ((20, 90), "begins at", [(10, 20)]),
        ((10, 20), "ends at", [(20, 90)]),
        ((20, 50), "begins at", [(10, 20), (50, 90)]),
        ((), "nothing of that time", []),
        ((90,), "begins at", []),
    ],
)
def test_a_gap_is_closed_only_as_far_as_history_covers_it(
    times: tuple[int, ...], why: str, rests: list[tuple[int, int]]
) -> None:
    one = refill(10 * MS, 90 * MS)
    one.take(batch(*(t * MS for t in times)))
    assert (why in one.why_not()) if why else not one.why_not()
    assert one.rests() == [(start * MS, end * MS) for start, end in rests]
    one.hole = True
    assert one.why_not()
    assert one.rests() == [], "where the hole is nobody can tell"


def test_what_is_older_than_history_max_stays_a_gap() -> None:
    one = Refill(gap(10 * MS, 90 * MS), 0, 3, 50 * MS, np.zeros(0, np.int64))
    assert one.take(batch(10 * MS, 40 * MS, 60 * MS, 90 * MS)).time.tolist() == [60 * MS]
    assert "history_max" in one.why_not()
    one.reached = True
    assert one.rests() == [(10 * MS, 50 * MS)]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12))
def test_readings_of_one_time_are_set_apart_and_none_is_lost(rows: list[tuple[int, float]]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    found = apart(Batch.of([0] * len(rows), [1000 * t for t, _ in rows], [v for _, v in rows]))
    assert (np.diff(found.time) > 0).all()
    repeats = sum(a == b for a, b in itertools.pairwise(rows))
    assert len(found) == len(rows) - repeats
    assert set(zip((found.time // 1000).tolist(), found.value.tolist(), strict=True)) == {(t, v) for t, v in rows}


def test_side_columns_stay_with_their_rows() -> None:
    builder = BatchBuilder()
    for text in ("a", "a", "b"):
        builder.add(0, 5, text)
    found = apart(builder.build())
    assert (found.time.tolist(), found.text) == ([5, 6], ("a", "b"))


def test_calls_hold_alike_intervals_and_a_signal_once() -> None:
    def one(start: int, end: int, handle: int, signal: int) -> Refill:
        return Refill(gap(start * 10**9, end * 10**9), handle, signal, 0, np.zeros(0, np.int64))

    many = [one(0, 100, h, h) for h in range(5)] + [one(50, 100, 9, 9), one(0, 100, 0, 20), one(0, 100, 0, 0)]
    calls = list(in_calls(many, 3))
    assert sorted(id(r) for call in calls for r in call) == sorted(map(id, many))
    for call in calls:
        assert len({r.handle for r in call}) <= 3
        assert len({r.signal for r in call}) == len(call)
        assert len({r.gap.time for r in call}) == 1
