"""What is known of signals: the source's words, overruled by `[[signal]]` rules."""

import numpy as np
import pytest

from edge.catalog import Catalog
from edge.config import SignalRule
from fieldlab.model import Batch, SignalInfo, SignalKey, SignalTable
from fieldlab.model.signal import TooManySignalsError

DIAMETER = SignalKey.parse("drachten/shavers/3/cnc-07/diameter")
LOAD = SignalKey.parse("drachten/shavers/3/cnc-07/spindle_load")


def catalog(*rules: SignalRule, table: SignalTable | None = None) -> tuple[Catalog, list[SignalInfo]]:
    told: list[SignalInfo] = []
    return Catalog(SignalTable() if table is None else table, rules, told.append), told


def test_rules_overrule_the_source_and_later_rules_earlier_ones() -> None:
    made, told = catalog(
        SignalRule(match="cnc-*/*", unit="?", usl=26.0), SignalRule(match="cnc-07/diameter", unit="mm", lsl=24.0)
    )
    made.describe(SignalInfo(key=DIAMETER, unit="inch", target=25.0))
    assert told == [SignalInfo(key=DIAMETER, unit="mm", lsl=24.0, usl=26.0, target=25.0)]


def test_a_description_is_told_once_and_again_when_it_changes() -> None:
    made, told = catalog()
    first = made.describe(SignalInfo(key=DIAMETER, unit="mm"))
    assert made.describe(SignalInfo(key=DIAMETER, unit="mm")) == first
    assert made.index(DIAMETER, "end-to-end") == first
    assert len(told) == 1
    made.describe(SignalInfo(key=DIAMETER, unit="µm"))
    assert [info.unit for info in told] == ["mm", "µm"]


def test_values_are_scaled_where_that_is_configured_and_nowhere_else() -> None:
    made, _ = catalog(SignalRule(match="*/diameter", scale=0.1, offset=2.0))
    diameter, load = made.index(DIAMETER, "end-to-end"), made.index(LOAD, "end-to-end")
    batch = made.apply(Batch.of([load, diameter, diameter], [1, 1, 2], [40.0, 100.0, np.nan], [0, 0, 0x80000000]))
    assert batch.value[:2].tolist() == [40.0, 12.0]
    assert np.isnan(batch.value[2])


def test_a_source_may_give_the_scale_and_a_rule_wins() -> None:
    made, _ = catalog(SignalRule(match="*/spindle_load", scale=2.0))
    diameter = made.describe(SignalInfo(key=DIAMETER), scale=10.0)
    load = made.describe(SignalInfo(key=LOAD), scale=10.0)
    assert made.apply(Batch.of([diameter, load], [1, 1], [1.0, 1.0])).value.tolist() == [10.0, 2.0]


def test_a_map_makes_a_state_with_texts() -> None:
    made, told = catalog(SignalRule(match="*/spindle_load", map={"0": "idle", "1": "busy"}))
    made.index(LOAD, "sampled")
    assert told == [SignalInfo(key=LOAD, kind="state", states={"0": "idle", "1": "busy"}, guarantee="sampled")]


def test_rules_that_match_nothing_are_named() -> None:
    made, _ = catalog(SignalRule(match="cnc-07/*"), SignalRule(match="printer-*/nozzle"))
    made.index(DIAMETER, "end-to-end")
    assert [rule.match for rule in made.unmatched()] == ["printer-*/nozzle"]


def test_the_cap_on_series_is_kept() -> None:
    made, _ = catalog(table=SignalTable(max_series=1))
    made.index(DIAMETER, "end-to-end")
    with pytest.raises(TooManySignalsError, match="spindle_load"):
        made.index(LOAD, "end-to-end")
    assert made.index(DIAMETER, "end-to-end") == 0
