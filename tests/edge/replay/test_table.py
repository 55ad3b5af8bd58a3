"""Recorded files as people have them: delimiters, headers, decimal commas, gaps, times."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.replay.table import Table, numbers
from edge.sources.replay.times import NO_TIME, strictly_ascending, to_ns
from fieldlab.errors import RefusedError

SECOND = 1_000_000_000


def read(path: Path) -> tuple[Table, list[list[str]]]:
    table = Table(path)
    return table, [list(chain(*parts)) for parts in zip(*table.chunks(), strict=True)]


@pytest.mark.parametrize("delimiter", [";", "\t", ",", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_delimiter_and_header(tmp_path: Path, delimiter: str, header: bool) -> None:
    rows = [["1", "2.5", "-3e2"], ["4", "5", "6"]]
    lines = [delimiter.join(row) for row in ([["a", "b", "c"]] if header else []) + rows]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    table, columns = read(tmp_path / "x.csv")
    assert table.layout.columns == (("a", "b", "c") if header else ("c1", "c2", "c3"))
    assert columns == [["1", "4"], ["2.5", "5"], ["-3e2", "6"]]


def test_decimal_comma_quotes_byte_order_mark_and_short_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('\ufeffzeit;"kraft; N";weg\n01.02.2024 10:00:00;1,5;2\n\n01.02.2024 10:00:01;2,5\n')
    table, columns = read(tmp_path / "x.csv")
    assert table.layout.columns == ("zeit", "kraft; N", "weg")
    assert table.layout.decimal_comma
    value, wrong = numbers(columns[1], decimal_comma=True)
    assert value.tolist() == [1.5, 2.5]
    assert not wrong.any()
    assert columns[2] == ["2", ""]
    assert table.short_rows == 1
    assert np.diff(to_ns(columns[0])).tolist() == [SECOND]


def test_missing_and_wrong_cells() -> None:
    value, wrong = numbers(["1", "", "NaN", "null", "oops", "True", "1_000"], decimal_comma=False)
    assert np.isfinite(value).tolist() == [True, False, False, False, False, True, False]
    assert wrong.tolist() == [False, False, False, False, True, False, True]


def test_times() -> None:
    cells = ["2020-03-09 10:14:33", "2020-03-09T11:14:33.5+01:00", "1583748873", "1583748873000", "12.5", "", "soon"]
    assert to_ns(cells).tolist() == [
        1583748873 * SECOND, 1583748873 * SECOND + SECOND // 2, 1583748873 * SECOND, 1583748873 * SECOND,
        12 * SECOND + SECOND // 2, NO_TIME, NO_TIME,
    ]  # fmt: skip


def test_rows_at_one_time_are_kept_apart() -> None:
    times, moved = strictly_ascending(np.array([5, 5, 5, 9, NO_TIME, NO_TIME, 3], np.int64), 5)
    assert times.tolist() == [6, 7, 8, 9, NO_TIME, NO_TIME, 3]
    assert moved == 3


@pytest.mark.parametrize(("text", "told"), [("", "is empty"), ("a,a\n1,2\n", "two columns are called 'a'")])
def test_refusals(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(RefusedError, match=told):
        Table(tmp_path / "x.csv")
    with pytest.raises(RefusedError, match="cannot be read"):
        Table(tmp_path / "absent.csv")


def test_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "x.parquet"
    with duckdb.connect() as db:
        db.execute(
            "COPY (SELECT TIMESTAMP '2024-01-01 00:00:00' + to_seconds(i) AS t, i * 0.5 AS x, NULL::DOUBLE AS y "
            f"FROM range(3) r(i)) TO '{path}' (FORMAT parquet)"
        )
    table, columns = read(path)
    assert table.layout.columns == ("t", "x", "y")
    assert np.diff(to_ns(columns[0])).tolist() == [SECOND, SECOND]
    assert numbers(columns[1], decimal_comma=False)[0].tolist() == [0.0, 0.5, 1.0]
    assert columns[2] == ["", "", ""]
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(RefusedError, match="cannot be read"):
        Table(tmp_path / "bad.parquet")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.csv"
    path.write_bytes(data)
    try:
        table, columns = read(path)
    except RefusedError:
        return
    for cells in columns:
        numbers(cells, decimal_comma=table.layout.decimal_comma)
        to_ns(cells)
