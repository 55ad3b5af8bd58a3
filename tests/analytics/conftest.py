"""A small factory for the engine: a milling machine with parts, told by the journal's records."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.engine import Engine
from fieldlab.model import Batch, BatchBuilder, Control, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
MILL = Place("site", "area", "line", "mill")


class Plant:
    """Builds records: readings in the order in which they are said, ticks and configurations."""

    def __init__(self) -> None:
        self.table = SignalTable()
        self.rows: list[tuple[int, int, Any, int]] = []
        self.now = START

    def key(self, name: str, place: Place = MILL) -> SignalKey:
        return SignalKey(place, name)

    def say(self, name: str, value: Any, time: int | None = None, status: int = 0, place: Place = MILL) -> None:
        index = self.table.index(self.key(name, place))
        self.rows.append((index, self.now if time is None else time, value, status))

    def part(
        self, name: str, diameter: float | None, *, status: int = 0, load: Sequence[float] = (), **also: str
    ) -> None:
        """A part of ten seconds: its id, what rides along, load while it is made, its diameter at the end."""
        self.say("part_id", name)
        for other, text in also.items():
            self.say(other, text)
        for i, value in enumerate(load):
            self.say("load", value, self.now + (i + 1) * 8 * SECOND // (len(load) + 1))
        if diameter is not None or status:
            self.say("diameter", diameter, self.now + 9 * SECOND, status)
        self.now += 10 * SECOND

    def configure(self, config: AnalyticsConfig) -> Record:
        control = Control(time=self.now, action="configure", by="test", detail=msgspec.to_builtins(config))
        return Record(0, RecordKind.CONTROL, self.now, rows=(control,))

    def control(self, action: Any, **detail: Any) -> Record:
        control = Control(time=self.now, action=action, by="anna", detail=detail)
        return Record(0, RecordKind.CONTROL, self.now, rows=(control,))

    def batch(self) -> Batch:
        builder = BatchBuilder()
        for index, time, value, status in self.rows:
            builder.add(index, time, value, status)
        self.rows.clear()
        return builder.build()

    def readings(self) -> Record:
        return Record(0, RecordKind.READINGS, self.now, batch=self.batch())

    def silence(self) -> list[Record]:
        return [Record(0, RecordKind.TICK, self.now + s * SECOND) for s in (0, 5)]

    def engine(self, config: AnalyticsConfig) -> Engine:
        engine = Engine(self.table)
        engine.fold([self.configure(config)])
        return engine


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest.fixture
def mill_config() -> Callable[..., AnalyticsConfig]:
    """A configuration of the mill: an individuals and an EWMA chart of the diameter, one value a part."""

    def make(*, baseline: int = 30, charts: Sequence[ChartConfig] | None = None, **part: Any) -> AnalyticsConfig:
        usual = (
            ChartConfig(name="size", signals=("mill/diameter",), baseline=baseline),
            ChartConfig(name="drift", kind="ewma", signals=("mill/diameter",), baseline=baseline),
        )
        info = SignalInfo(key=SignalKey(MILL, "diameter"), unit="mm", lsl=9.5, usl=10.5)
        return AnalyticsConfig(
            charts=usual if charts is None else tuple(charts),
            parts=(PartConfig(**{"machine": "mill", "id": "part_id", "genealogy": ("tool",), **part}),),
            signals=(info,),
        )

    return make


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(11)
