"""What limits are frozen on when a person names a range: the values that the chart would have had, from the store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.versions import Wish
from edge.limits import items_of
from fieldlab.errors import RefusedError
from fieldlab.model import Batch, BatchBuilder, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from ingest.stores import load_kind
from ingest.stores.base import Reader, StoreContext

SECOND = 1_000_000_000
T0 = 1_763_900_000 * SECOND
MILL = Place("drachten", "shavers", "3", "mill")
N = 600  # readings, one a second; a part and a window have ten; program B runs from 300 to 450
VALUES = np.random.default_rng(3).normal(10.0, 1.0, N)


def made() -> Iterator[Batch]:
    builder, index = BatchBuilder(), {"load": 0, "part_id": 1, "program": 2}
    for i in range(N):
        if i % 10 == 0:
            builder.add(index["part_id"], T0 + i * SECOND, f"P{i // 10}")
        if i in (0, 300, 450):
            builder.add(index["program"], T0 + i * SECOND, "B" if i == 300 else "A")
        builder.add(index["load"], T0 + i * SECOND + SECOND // 2, float(VALUES[i]))
    yield builder.build()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: Any) -> Iterator[Reader]:
    table = SignalTable()
    keys = [SignalKey(MILL, name) for name in ("load", "part_id", "program")]
    for key in keys:
        table.index(key)
    folder: Path = tmp_path_factory.mktemp("store")
    kind = load_kind("embedded")
    store, found = kind.create(kind.config(), StoreContext(name="embedded", agent="a", data=folder), table)
    assert found is not None
    infos = tuple(SignalInfo(key=key, kind="gauge" if key.name == "load" else "text") for key in keys)
    store.write([Record(1, RecordKind.SIGNAL, T0, rows=infos)])
    store.write([Record(2, RecordKind.READINGS, T0, batch=batch) for batch in made()])
    yield found
    store.close()


def items(
    reader: Reader, start: int, end: int, recipe: str | None = None, *, parts: bool = False, **chart: Any
) -> np.ndarray:  # fmt: skip
    config = AnalyticsConfig(
        charts=(ChartConfig(name="c", signals=("mill/load",), **chart),),
        parts=(PartConfig(machine="mill", id="part_id"),) if parts else (),
    )
    wish = Wish(id="w", chart="c", recipe=recipe)
    return np.array(items_of(reader, config, wish, T0 + start * SECOND, T0 + end * SECOND))


def test_readings(reader: Reader) -> None:
    found = items(reader, 100, 200, per="reading")
    assert found[:, 0] == pytest.approx(VALUES[100:200])


def test_windows(reader: Reader) -> None:
    """A reading behind it ends a window, so the last one is none."""
    found = items(reader, 100, 200, per="10s", feature="max")
    assert found[:, 0] == pytest.approx(VALUES[100:190].reshape(-1, 10).max(axis=1))


def test_parts(reader: Reader) -> None:
    """The last part has no end in the range: it is none."""
    found = items(reader, 100, 200, parts=True)
    assert found[:, 0] == pytest.approx(VALUES[100:190].reshape(-1, 10).mean(axis=1))


def test_subgroups(reader: Reader) -> None:
    found = items(reader, 100, 200, per="reading", kind="xbar-s", subgroup=5)
    groups = VALUES[100:200].reshape(-1, 5)
    assert found == pytest.approx(np.column_stack([groups.mean(axis=1), groups.std(axis=1, ddof=1), np.full(20, 5)]))


@pytest.mark.parametrize(("recipe", "first", "last"), [("A", 200, 300), ("B", 300, 400), (None, 300, 400)])
def test_recipes(reader: Reader, recipe: str | None, first: int, last: int) -> None:
    """A range over both: those of one recipe, by default of the one that runs at its end."""
    found = items(reader, 200, 400, recipe, per="reading", limits_by=("program",))
    assert found[:, 0] == pytest.approx(VALUES[first:last])


def test_nothing_to_freeze_on(reader: Reader) -> None:
    with pytest.raises(RefusedError, match="no value"):
        items(reader, 10_000, 20_000, per="reading")
    with pytest.raises(RefusedError, match="multivariate"):
        items(reader, 0, 100, per="reading", kind="t2")
    config = AnalyticsConfig(charts=(ChartConfig(name="c", signals=("mill/*",)),))
    with pytest.raises(RefusedError, match="there is no chart"):
        items_of(reader, config, Wish(id="w", chart="d"), 0, 1)
    with pytest.raises(RefusedError, match="name it with --signal"):
        items_of(reader, config, Wish(id="w", chart="c"), 0, 1)
