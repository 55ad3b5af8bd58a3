"""A part of an array: its elements keep their true index, and one that is not there is a matter of its signal alone."""

import asyncio
from typing import Any

import numpy as np
import pytest

from edge.sources.opcua.check import check_source
from edge.sources.opcua.columns import Columns, Opaque, join
from edge.sources.opcua.config import validate
from edge.sources.opcua.ranges import cut, first_of, true_path
from fieldlab.errors import ConfigError
from fieldlab.model import Batch

NO_DATA = 0x80370000  # BadIndexRangeNoData
VARIABLES = {
    "curve": {"type": "Double", "value": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "history": 100},
    "plain": {"type": "Double", "value": 7.0},
}


def signals(server: Any) -> list[dict[str, Any]]:
    def of(name: str, node: str, part: str) -> dict[str, Any]:
        return {"name": name, "node": f"nsu={server.uri};s={server.prefix}{node}", "range": part}

    return [
        of("curve", "curve", "2:4"), of("one", "curve", "5"), of("far", "curve", "10:12"),
        of("plain", "plain", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_elements_keep_their_index(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, mode: str
) -> None:
    server = shared(VARIABLES)
    source = run_source(table(server, signals(server), mode=mode, sampling="50ms"), sink)
    expected = {
        "curve[2]": 2.5, "curve[3]": 3.5, "curve[4]": 4.5, "one[5]": 5.5, "plain": 7.0,
    }  # fmt: skip
    wait_until(lambda: {r.name: r.value for r in sink.readings() if r.status == 0} == expected)
    server.ask("set", name="curve", type="Double", value=[9.0] * 12)
    wait_until(lambda: {r.name for r in sink.readings() if r.value == 9.0} >= {"curve[4]", "one[5]", "far[10]"})
    far = sink.readings("far")
    assert not far or {r.status for r in far} == {NO_DATA}, "until then it has a status, or is missing"
    wait_until(lambda: not source.status.missing)
    server.ask("set", name="curve", type="Double", value=[8.0])
    wait_until(lambda: {r.name for r in sink.readings() if r.status == NO_DATA} >= {"curve[2]", "curve[4]", "one[5]"})
    server.ask("set", name="plain", type="Double", value=70.0)
    wait_until(lambda: sink.readings("plain")[-1].value == 70.0, what="the others go on")


def test_an_array_that_becomes_shorter_says_so_of_its_elements(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    """Once, at the time of the shorter array; an element that comes back has its value again."""
    server = shared({"curve": {"type": "Double", "value": [1.0, 2.0, 3.0]}})
    run_source(table(server, ["curve"], interval="50ms"), sink)
    wait_until(lambda: len(sink.readings()) == 3)
    server.ask("set", name="curve", type="Double", value=[4.0])
    wait_until(lambda: len(sink.readings()) == 6)
    server.ask("set", name="curve", type="Double", value=[5.0])
    server.ask("set", name="curve", type="Double", value=[6.0, 7.0])
    wait_until(lambda: any(r.value == 7.0 for r in sink.readings()))
    told = {name: [(r.value, r.status) for r in sink.readings(name)] for name in ("curve[1]", "curve[2]")}
    assert [v for v, s in told["curve[1]"] if not s] == [2.0, 7.0]
    assert [s for _, s in told["curve[1]"] if s] == [0x809B0000]
    assert [s for _, s in told["curve[2]"]] == [0, 0x809B0000]
    times = {r.name: r.time for r in sink.readings() if r.value == 4.0 or r.status}
    assert len(set(times.values())) == 1


def test_check_shows_the_part(shared: Any, table: Any, context: Any) -> None:
    server = shared(VARIABLES)
    config = table(server, signals(server))
    lines = {line.subject.rpartition("/")[2]: line for line in asyncio.run(check_source(config, context))}
    assert lines["curve"].level == "ok"
    assert "[2:4] = [2.5, 3.5, 4.5]" in lines["curve"].text
    assert lines["curve"].data["range"] == "2:4"
    assert lines["far"].level in ("warn", "fail")
    assert "BadIndexRangeNoData" in lines["far"].text


def test_of_history_the_part_is_kept() -> None:
    """Some servers ignore the range there (node-opcua does), so it is cut here."""
    texts = Batch(
        np.array([0], np.uint32), np.zeros(1, np.int64), np.array([np.nan]), np.zeros(1, np.uint32),
        np.array([0], np.uint32), ("whole",),
    )  # fmt: skip
    lost = Batch.of([0], [5], [np.nan], [NO_DATA])
    arrays = Columns(Batch.of([0] * 8, range(8), [0.5 * i for i in range(8)]), np.array([0, 1, 2, 3] * 2, np.int32))
    found, whole = cut(join([arrays, Columns(lost)]), "1:2")
    assert whole
    assert found.batch.value.tolist()[:4] == [0.5, 1.0, 2.5, 3.0]
    assert found.batch.status.tolist() == [0, 0, 0, 0, NO_DATA]
    assert found.element is not None
    assert found.element.tolist() == [0, 1, 0, 1, -1]
    for odd in (Columns(texts), Columns(lost, opaque=(Opaque(0, 1, 0, b""),))):
        found, whole = cut(odd, "1:2")
        assert not whole, "the gap stays: what a part of it is cannot be told"
        assert not found.opaque
        assert len(found.batch) == int(odd.batch is lost)


@pytest.mark.parametrize("text", ["5:2", "2:2", "-1", "a", "1:", "2:5,1:3", "1 : 2", "4294967296"])
def test_what_is_no_range_is_refused(text: str, shared: Any, table: Any, context: Any) -> None:
    with pytest.raises(ValueError, match=r"must|matrix"):
        first_of(text)
    server = shared({})
    with pytest.raises(ConfigError, match=r"must|matrix") as e:
        validate(table(server, [{"name": "a", "node": "i=1", "range": text}]), context)
    assert e.value.key == "signal[0].range"


def test_paths_within_a_part() -> None:
    assert (first_of(""), first_of("7"), first_of("2:5")) == (0, 7, 2)
    assert true_path("[1].x[0]", 2) == "[3].x[0]"
    assert true_path(".x[0]", 2) == ".x[0]"
