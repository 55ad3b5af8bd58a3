"""The `[[source]] kind = "mqtt"` table: the sample loads, and what makes no sense is refused by key."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import edge.sources.mqtt
from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig, client_id_of, filters_of, parse_url
from fieldlab.config import Document
from fieldlab.errors import ConfigError

FOLDER = Path(edge.sources.mqtt.__file__).parent


def test_the_sample_makes_sources(context: Any, sink: Any) -> None:
    document = Document(FOLDER / "sample.toml")
    tables = document.data["source"]
    assert len(tables) == 3
    for i, table in enumerate(tables):
        config = document.bind(KIND.config, table, f"source[{i}]")
        assert isinstance(config, MqttConfig)
        KIND.create(config, context, sink)
        assert filters_of(config) == (("fieldlab/+/+/+/+/+",), ("plant/+/sensors/#",), ("plant/+/telemetry",))[i]
        assert client_id_of(config, context) == "line-3-0"


def test_every_key_is_in_the_readme() -> None:
    readme = (FOLDER / "README.md").read_text()
    for field in msgspec.structs.fields(MqttConfig):
        assert field.name == "kind" or f"`{field.name}`" in readme


def test_urls() -> None:
    assert parse_url("mqtt://broker").url == "mqtt://broker:1883"
    assert parse_url("mqtts://10.0.0.1").url == "mqtts://10.0.0.1:8883"
    assert parse_url("mqtt://[::1]:1884/").url == "mqtt://[::1]:1884"


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"url": "http://broker"}, "url", "mqtt://"),
        ({"url": "mqtt://"}, "url", "mqtt://"),
        ({"url": "mqtt://host:99999"}, "url", "not a URL"),
        ({"url": "mqtt://me:secret@host"}, "url", "password_file"),
        ({"format": "csv"}, "format", "'csv' is not built yet"),
        ({"topic": "a/{machine}/b"}, "topic", "{signal}"),
        ({"topic": "a/{signal}"}, "topic", "machine"),
        ({"topic": "a/{nothing}"}, "topic", "known"),
        ({"topics": ("a", "b#")}, "topics[1]", "#"),
        ({"topics": ("$share/g",)}, "topics[0]", "$share/GROUP"),
        ({"ca_file": Path("/nowhere/ca.pem"), "url": "mqtts://host"}, "ca_file", "no file"),
        ({"ca_file": Path(__file__)}, "ca_file", "mqtts://"),
        ({"ca_file": Path(__file__), "url": "mqtts://host"}, "ca_file", "cannot be used"),
        ({"server_name": "broker"}, "server_name", "mqtts://"),
        ({"url": "mqtts://host", "key_file": Path(__file__)}, "key_file", "cert_file"),
        ({"password_file": Path("/nowhere/password")}, "password_file", "username"),
        ({"username": "me", "password_file": Path("/nowhere/password")}, "password_file", "missing"),
        ({"in_flight": 0}, "in_flight", "1 to 65535"),
        ({"keepalive": 0.5}, "keepalive", "1s"),
        ({"gather": 0.5}, "gather", "100ms"),
        ({"values": {"a": ""}}, "values", "keys with a dot"),
        ({"values": {"a": "b..c"}}, "values", "keys with a dot"),
        ({"values": {"a": "b.*"}}, "values", "as many *"),
        ({"values": {"_a": "b"}}, "values", "starts with _"),
        ({"values": {"a/b": "b"}}, "values", "may not hold"),
        ({"values": {"a": "b"}, "value": "c"}, "value", "beside `values`"),
    ],
)
def test_what_makes_no_sense(context: Any, sink: Any, keys: Any, key: Any, words: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        KIND.create(MqttConfig(**{"url": "mqtt://host", **keys}), context, sink)
    assert caught.value.key == key
    assert words in str(caught.value)


def test_a_place_that_nobody_names(context: Any, sink: Any) -> None:
    nowhere = msgspec.structs.replace(context, site="")
    config = MqttConfig(url="mqtt://host", topic="{machine}/{signal}")
    with pytest.raises(ConfigError, match=r"write `site` in \[place\]"):
        KIND.create(config, nowhere, sink)
    KIND.create(config, context, sink)
