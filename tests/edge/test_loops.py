"""An agent that would read what it publishes is refused."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge.config import load
from edge.loops import overlap
from fieldlab.errors import ConfigError

HEAD = """[agent]
name = "line-3"
"""
STORE = """[[store]]
kind = "mqtt"
url = "mqtt://{0}"
readings = true
"""
SOURCE = """[[source]]
kind = "mqtt"
url = "mqtt://{0}"
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "fieldlab.toml"
        file.write_text(HEAD + text)
        return file

    return write


@pytest.mark.parametrize(
    ("store", "source"),
    [
        ("", ""),
        ("", 'topics = ["#"]'),
        ("", 'topics = ["plant/#", "+/drachten/shavers/3/cnc-07/load"]'),
        ("", 'topics = ["$share/ingest/fieldlab/#"]'),
        ('signals = ["cnc-*/load"]', 'topics = ["fieldlab/+/+/+/+/load"]'),
        ('prefix = "acme/uns"', 'topics = ["acme/#"]\ntopic = "acme/uns/{site}/{area}/{line}/{machine}/{signal}"'),
    ],
)
def test_what_comes_back_is_refused(store: str, source: str, configuration: Callable[[str], Path]) -> None:
    file = configuration(f"{STORE.format('127.0.0.1:1883')}{store}\n{SOURCE.format('localhost')}{source}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.key == "store[0]"
    assert caught.value.line == 3
    assert "source[0] (line " in str(caught.value)
    assert "subscribes to" in str(caught.value)


@pytest.mark.parametrize(
    ("store", "broker", "source"),
    [
        ("", "10.0.0.7", ""),
        ("", "127.0.0.1:1884", ""),
        ('prefix = "uns"', "127.0.0.1", ""),
        ('signals = ["cnc-07/*"]', "127.0.0.1", 'topics = ["fieldlab/+/+/+/printer-1/+"]'),
        ("readings = false", "127.0.0.1", 'topics = ["fieldlab/#"]'),
        ("", "127.0.0.1", 'format = "sparkplug"'),
    ],
)
def test_what_does_not_come_back_is_not(
    store: str, broker: str, source: str, configuration: Callable[[str], Path]
) -> None:
    table = STORE.format("127.0.0.1")
    if store.startswith("readings"):
        table = table.replace("readings = true\n", "")
    load(configuration(f"{table}{store}\n{SOURCE.format(broker)}{source}\n"))


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4)
FILTERS = st.builds(lambda levels, more: "/".join(levels + ["#"] * more), LEVELS, st.booleans())
TOPICS = ["/".join(levels) for n in range(1, 6) for levels in itertools.product("ab", repeat=n)]


@given(one=FILTERS, other=FILTERS)
def test_filters_overlap_if_a_topic_fits_both(one: str, other: str) -> None:
    common = any(topic_matches_sub(one, topic) and topic_matches_sub(other, topic) for topic in TOPICS)
    assert overlap(one, other) == overlap(other, one) == common


def test_a_wildcard_does_not_take_the_brokers_own_topics() -> None:
    assert not overlap("#", "$SYS/broker/load")
    assert overlap("$SYS/#", "$SYS/broker/load")
