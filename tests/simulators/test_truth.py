"""The truth file: what is written is read again, also while it grows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.machines import FaultEvent, Part, Reading
from simulators.truth import ReadingLine, TruthError, TruthWriter, read_truth

PLACE = "site/area/line/m-1"
VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text())


@given(readings=st.lists(st.tuples(st.text(), st.integers(0, 2**62), VALUES, st.integers(0, 2**32 - 1))))
def test_readings_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, readings: list[tuple[str, int, float | str, int]]
) -> None:
    path = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    with TruthWriter(path) as truth:
        truth.write_readings(PLACE, [Reading(*r) for r in readings])
        assert truth.readings == len(readings)
    back = read_truth(path).readings
    expected = [(PLACE, signal, ts, None if code & 0x80000000 else v, code) for signal, ts, v, code in readings]
    assert [(r.place, r.signal, r.ts, r.value, r.status) for r in back] == expected, "a Bad reading has no value"


def test_the_lines_are_those_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    event = FaultEvent("m-1-tool_wear-1", "tool_wear", ("diameter",), 5, None, "m-1-000002", 1.0)
    with TruthWriter(path) as truth:
        truth.write_readings(PLACE, [Reading("diameter", 1, 25.0)])
        truth.write_faults(PLACE, [event])
        truth.write_parts(PLACE, [Part("m-1-000001", 1, 5, False, "too big", {"diameter": 26.0})])
        truth.write_faults(PLACE, [event._replace(end=9)])
        assert (truth.parts, truth.bad) == (1, 1)
        lines = path.read_text().splitlines()  # before it is closed: every write is flushed
    fault = '"signals":["diameter"],"kind":"tool_wear","start":5,"end":%s,"first_part":"m-1-000002","severity":1.0}'
    part = '"id":"m-1-000001","start":1,"end":5,"good":false,"why":"too big","dimensions":{"diameter":26.0}}'
    assert lines == [
        f'{{"type":"reading","place":"{PLACE}","signal":"diameter","ts":1,"value":25.0,"status":0}}',
        f'{{"type":"fault","id":"m-1-tool_wear-1","place":"{PLACE}",{fault % "null"}',
        f'{{"type":"part","place":"{PLACE}",{part}',
        f'{{"type":"fault","id":"m-1-tool_wear-1","place":"{PLACE}",{fault % "9"}',
    ]
    (fault_line,) = read_truth(path).faults
    assert fault_line.end == 9


def test_a_last_line_in_writing_is_left_out_and_a_wrong_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    line = b'{"type":"reading","place":"p","signal":"s","ts":1,"value":"x","status":0}\n'
    path.write_bytes(line + line[:20])
    assert read_truth(path).readings == [ReadingLine(place="p", signal="s", ts=1, value="x")]
    path.write_bytes(line + b"{}\n" + line)
    with pytest.raises(TruthError, match=r"truth.jsonl:2: not a line of truth"):
        read_truth(path)


def test_without_a_file_it_counts() -> None:
    with TruthWriter(None) as truth:
        truth.write_readings(PLACE, [Reading("a", 1, 1.0)])
        assert truth.readings == 1
