"""What types cannot say about `[[chart]]` and `[[part]]`."""

from typing import Any

import msgspec
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig, config_hash, span_ns, validate


def wrong(part: dict[str, Any] | None = None, **chart: Any) -> dict[str, str]:
    charts = [{"signals": ["cnc-07/x"], **chart}] if chart else []
    return dict(validate(msgspec.convert({"charts": charts, "parts": [part] if part else []}, AnalyticsConfig)))


def test_the_example_of_the_design() -> None:
    chart = {
        "name": "diameter", "kind": "ewma", "signals": ["cnc-07/diameter"], "per": "part", "feature": "mean",
        "subgroup": 1, "baseline": 100, "rules": ["1"], "lambda": 0.1,
    }  # fmt: skip
    part = {"machine": "cnc-07", "id": "part_id", "genealogy": ["tool", "material_lot"]}
    config = msgspec.convert({"charts": [chart], "parts": [part]}, AnalyticsConfig)
    assert validate(config) == []
    assert config.charts[0].lambda_ == 0.1
    assert msgspec.convert(msgspec.to_builtins(config), AnalyticsConfig) == config


@pytest.mark.parametrize(
    ("key", "words", "chart"),
    [
        ("chart[0].kind", "individuals, xbar-r", {"kind": "shewart"}),
        ("chart[0].kind", "did you mean 'cusum'", {"kind": "cumsum"}),
        ("chart[0].subgroup", "2 or more", {"kind": "xbar-s"}),
        ("chart[0].subgroup", "xbar-s", {"kind": "xbar-r", "subgroup": 40}),
        ("chart[0].subgroup", "xbar-s", {"kind": "xbar-r", "subgroup": 0}),
        ("chart[0].subgroup", "has none", {"kind": "xbar-s", "subgroup": 0, "per": "reading"}),
        ("chart[0].size", "needs the size", {"kind": "p"}),
        ("chart[0].size", "not both", {"kind": "u", "n": 5, "size": "cnc-07/n"}),
        ("chart[0].size", 'kind = "u"', {"kind": "c", "size": "cnc-07/n"}),
        ("chart[0].n", "do not count", {"kind": "ewma", "n": 5}),
        ("chart[0].feature", "sum of the counts", {"kind": "c", "feature": "max"}),
        ("chart[0].recipe", "which recipe", {"kind": "short-run", "nominals": {"A": 1.0}}),
        ("chart[0].nominals", "nominal of each", {"kind": "short-run", "recipe": "cnc-07/p"}),
        ("chart[0].spreads", "'B'", {"kind": "short-run", "recipe": "m/p", "nominals": {"A": 1}, "spreads": {"B": 1}}),
        ("chart[0].nominals", "no recipes", {"nominals": {"A": 1.0}}),
        ("chart[0].baseline", "order 3 needs 22", {"kind": "residual", "baseline": 20}),
        ("chart[0].shift", "at most 6", {"kind": "cusum", "shift": 0.0}),
        ("chart[0].head_start", "below 1", {"kind": "cusum", "head_start": 1.0}),
        ("chart[0].rules", "depend on each other", {"kind": "cusum", "rules": "nelson"}),
        ("chart[0].rules", "not symmetric", {"kind": "p", "n": 50, "rules": ["2"]}),
        ("chart[0].rules", "cannot be mixed", {"rules": ["1", "nelson-3"]}),
        ("chart[0].arl0", "at most 86", {"rules": "nelson", "arl0": 370.0}),
        ("chart[0].per", "multivariate", {"kind": "t2", "per": "part"}),
        ("chart[0].rules", "one rule", {"kind": "pca", "rules": ["1"]}),
        ("chart[0].lags", "1 to 20", {"kind": "cva", "lags": 0}),
        ("chart[0].rules", "zone rules", {"kind": "ewma", "rules": ["1", "4"]}),
        ("chart[0].rules", "zone rules", {"kind": "ewma", "rules": "western-electric"}),
        ("chart[0].rules", "'9' is unknown", {"rules": ["9"]}),
        ("chart[0].arl0", "not both", {"arl0": 200.0, "false_alarm_rate": 0.01}),
        ("chart[0].arl0", "at most 253", {"rules": "western-electric", "arl0": 370.0}),
        ("chart[0].false_alarm_rate", "above 0", {"false_alarm_rate": 2.0}),
        ("chart[0].per", "10s", {"per": "ten"}),
        ("chart[0].per", "no [[part]]", {"per": "part"}),
        ("chart[0].signals", "machine/signal", {"signals": ["diameter"]}),
        ("chart[0].signals", "names no signal", {"signals": []}),
        ("chart[0].subgroup", "xbar", {"subgroup": 5}),
        ("chart[0].limits_file", "more than a centre and a sigma", {"limits_file": "limits.toml", "kind": "residual"}),
        ("chart[0].baseline", "at least 10", {"baseline": 3}),
        ("chart[0].lambda", "at most 1", {"kind": "ewma", "lambda": 1.5}),
    ],
)
def test_refused_with_key_and_words(key: str, words: str, chart: dict[str, Any]) -> None:
    assert words in wrong(**chart)[key]


@pytest.mark.parametrize("part", [{"machine": "m"}, {"machine": "m", "id": "a", "counter": "b"}])
def test_a_part_has_one_way_to_be_told(part: dict[str, Any]) -> None:
    assert "exactly one" in wrong(part)["part[0].id"]


def test_what_a_machine_shares() -> None:
    assert validate(AnalyticsConfig(false_alarms=0.5, shift="12h")) == []
    assert dict(validate(AnalyticsConfig(false_alarms=0.0, shift="long"))).keys() == {"false_alarms", "shift"}


def test_two_charts_of_one_name() -> None:
    chart = ChartConfig(name="a", signals=("m/x",))
    found = dict(validate(AnalyticsConfig(charts=(chart, msgspec.structs.replace(chart, signals=("m/y",))))))
    assert "2 charts are called 'a'" in found["chart[1].name"]


def test_hash_tells_any_change() -> None:
    one = AnalyticsConfig(parts=(PartConfig(machine="m", id="p"),))
    assert config_hash(one) == config_hash(msgspec.convert(msgspec.to_builtins(one), AnalyticsConfig))
    assert config_hash(one) != config_hash(msgspec.structs.replace(one, lateness=3.0))


def test_spans() -> None:
    assert [span_ns(t) for t in ("500ms", "10s", "1.5min", "1h")] == [5 * 10**8, 10**10, 9 * 10**10, 36 * 10**11]
    for text in ("10", "0s", "-1s", "x"):
        with pytest.raises(ValueError, match="is not understood"):
            span_ns(text)
