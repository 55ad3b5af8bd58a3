"""What comes back from real influxd is what went in: names, units, texts, floats, statuses and times."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldlab.model import BatchBuilder, Finding, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from ingest.line_protocol import plain_tag
from ingest.stores.base import StoreContext
from ingest.stores.influxdb.config import InfluxConfig
from ingest.stores.influxdb.kind import create_reader, create_store

SYMBOLS = [chr(c) for c in range(0x2400, 0x2422)] + ["\u29f5"]  # what a text may not hold, to come back as it was
NASTY = st.sampled_from(list("\\,= \"'`;:%&<>()[]{}|~!?*.-_äß€中😀e1iuEtT"))
names = st.text(
    NASTY
    | st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"], exclude_characters="/+#$"),
    min_size=1,
    max_size=40,
).filter(lambda name: not set(name) & set(SYMBOLS))
texts = st.text(
    NASTY | st.sampled_from("\n\r\t\0") | st.characters(exclude_categories=["Cs"], exclude_characters=SYMBOLS),
    max_size=60,
)
floats = st.floats(allow_nan=False, allow_infinity=False)
EDGES = st.sampled_from([5e-324, 1.7976931348623157e308, -0.0, 2.0**53, 0.1 + 0.2, 1e22, 1e-7])
times = st.integers(-(2**62), 2**63 - 3)
T0 = 1_763_900_000_000_000_000


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    places=st.lists(st.builds(Place, names, names, names, names), min_size=1, max_size=3, unique=True),
    signals=st.lists(
        st.tuples(names, st.booleans(), texts), min_size=1, max_size=6, unique_by=lambda s: plain_tag(s[0])
    ),
    readings=st.lists(st.tuples(st.integers(0, 17), times, floats | EDGES, texts, st.booleans()), max_size=25),
    detail=texts,
)
def test_influxd_gives_back_what_it_was_given(
    influxd: Any, tmp_path_factory: Any, places: Any, signals: Any, readings: Any, detail: str
) -> None:
    folder: Path = tmp_path_factory.mktemp("influx")
    keys = [SignalKey(place, name) for place in places for name, _, _ in signals]
    is_text = [text for _ in places for _, text, _ in signals]
    infos = [
        SignalInfo(key=key, unit=unit, kind="text" if text else "gauge", states={unit: "x"} if unit else {})
        for key, (_, text, unit) in zip(keys, list(signals) * len(places), strict=True)
    ]
    wanted: dict[tuple[int, int], Any] = {}
    for signal, time, number, text, uncertain in readings:
        index = signal % len(keys)
        wanted[index, time] = (text if is_text[index] else number, 0x40000000 if uncertain else 0)
    builder = BatchBuilder()
    for (index, time), (value, status) in wanted.items():
        builder.add(index, time, value, status)
    finding = Finding(time=T0, place=places[0], signal=signals[0][0], chart="c", rule="1", id="f", detail=detail)
    database = influxd.create_database()
    config = InfluxConfig(url=influxd.url, api="v1", bucket=database)
    store = create_store(config, StoreContext(name="influx", agent="a", data=folder), SignalTable(keys))
    reader = create_reader(config)
    try:
        records = [
            Record(1, RecordKind.SIGNAL, T0, rows=tuple(infos)),
            Record(2, RecordKind.READINGS, T0, builder.build()),
            Record(3, RecordKind.FINDING, T0, rows=(finding,)),
        ]
        assert store.write(records) == []
        assert {info.key: info for info in reader.signals()} == {info.key: info for info in infos}
        assert [f.detail for f in reader.findings()] == [detail]
        found: dict[tuple[int, int], Any] = {}
        for index, key in enumerate(keys):
            series = reader.telemetry(key, -(2**62), 2**63 - 2)
            for row, time in enumerate(series.time.tolist()):
                found[index, time] = (series.text.get(row, float(series.value[row])), int(series.status[row]))
        assert found == wanted
    finally:
        store.close()
        reader.close()
        influxd._ask("POST", f'DROP DATABASE "{database}"', database)
