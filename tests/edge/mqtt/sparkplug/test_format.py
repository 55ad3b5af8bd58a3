"""The sample loads, every key and counter is documented, and what makes no sense is refused by key."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

import edge.sources.mqtt.sparkplug as package
from edge.config import load
from edge.sources.base import SourceContext
from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig, filters_of, validate
from edge.sources.mqtt.sparkplug.config import SparkplugConfig
from fieldlab.config import Duration
from fieldlab.errors import ConfigError

FOLDER = Path(package.__file__).parent


def test_the_sample_makes_a_source(context: SourceContext, sink: Any) -> None:
    (source,) = load(FOLDER / "sample.toml").sources
    assert KIND.create(source.config, context, sink).name == "mqtt-0"


def test_every_key_and_counter_is_in_the_readme(host: Any) -> None:
    readme = (FOLDER / "README.md").read_text()
    names = [field.name for field in msgspec.structs.fields(SparkplugConfig)]
    for name in (*names, *host().dialect.counters):
        assert f"`{name}`" in readme, name


def test_everything_is_subscribed_to() -> None:
    assert filters_of(MqttConfig(url="mqtt://x", format="sparkplug")) == ("spBv1.0/#",)


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("topic", {"topic": "plant/{machine}"}),
        ("topic", {"topic": "spBv1.0/{area}/+/{machine}/{signal}"}),
        ("values", {"values": {"a": "b"}}),
        ("topics[0]", {"topics": ("$share/g/spBv1.0/#",)}),
        ("sparkplug.host_id", {"sparkplug": SparkplugConfig(host_id="a/b")}),
        ("sparkplug.reorder", {"sparkplug": SparkplugConfig(reorder=Duration(0.0))}),
        ("sparkplug.patience", {"sparkplug": SparkplugConfig(patience=Duration(1e9))}),
    ],
)
def test_what_makes_no_sense(context: SourceContext, key: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        validate(MqttConfig(url="mqtt://x", format="sparkplug", **more), context)
    assert error.value.key == key


def test_check_says_what_makes_no_sense(context: SourceContext) -> None:
    lines = asyncio.run(KIND.check(MqttConfig(url="mqtt://x", format="sparkplug", topic="a/b"), context))
    assert [line.level for line in lines] == ["fail"]
