"""The registry of formats: what is not configured is not imported, and every format's folder keeps its word."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edge.sources.mqtt
from edge.config import load
from edge.sources.base import SourceContext
from edge.sources.mqtt.check import check
from edge.sources.mqtt.config import MqttConfig, filters_of, validate
from edge.sources.mqtt.formats import known_formats, load_format
from fieldlab.errors import ConfigError

FOLDER = Path(edge.sources.mqtt.__file__).parent
DEVICES = ("octoprint", "moonraker", "bambu", "vda5050")


def test_a_format_that_is_not_configured_is_not_imported() -> None:
    code = (
        "import sys, edge.sources.mqtt as m\n"
        "from edge.sources.mqtt.config import MqttConfig, filters_of\n"
        "filters_of(MqttConfig(url='mqtt://h'))\n"
        "print(*(n for n in sys.modules if n.startswith('edge.sources.mqtt.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edge.sources.mqtt.multi" in loaded
    assert not loaded & {f"edge.sources.mqtt.{name}" for name in DEVICES}


@pytest.mark.parametrize("name", DEVICES)
def test_each_format_has_a_sample_that_loads_and_a_readme_that_names_its_signals(name: str) -> None:
    assert name in known_formats()
    config = load(FOLDER / name / "sample.toml")
    (source,) = config.sources
    assert source.config.format == name
    assert config.parts, "prints and orders are parts"
    readme = (FOLDER / name / "README.md").read_text("utf-8")
    modules = "".join(path.read_text("utf-8") for path in (FOLDER / name).glob("*.py"))
    modules += (FOLDER / "printers.py").read_text("utf-8") if name != "vda5050" else ""
    told = set(re.findall(r"`([\w<>]+)(?:\[1\])?`", readme))
    fixed = set(re.findall(r'Quantity\("(\w+)"', modules)) | set(re.findall(r'of_tool\(\d, "(\w+)"', modules))
    if name != "vda5050":  # not every printer has all words of printers
        used = set(re.findall(r"\b([A-Z][A-Z_]+)\b", "".join(p.read_text() for p in (FOLDER / name).glob("*.py"))))
        words = dict(re.findall(r'^([A-Z_]+) = Quantity\("(\w+)"', (FOLDER / "printers.py").read_text(), re.MULTILINE))
        fixed -= {signal for word, signal in words.items() if word not in used}
    assert fixed - told == set(), "signals that the README does not name"


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        (
            "octoprint",
            ("octoPrint/event/+", "octoPrint/progress/printing", "octoPrint/temperature/+", "octoPrint/mqtt"),
        ),
        ("moonraker", ("+/klipper/status", "+/klipper/state/+/+", "+/moonraker/status")),
        ("bambu", ("device/+/report",)),
        ("vda5050", tuple(f"uagv/v2/+/+/{each}" for each in ("state", "visualization", "connection", "factsheet"))),
    ],
)
def test_default_filters(name: str, filters: tuple[str, ...]) -> None:
    assert filters_of(MqttConfig(url="mqtt://host", format=name)) == filters
    assert filters_of(MqttConfig(url="mqtt://host", format=name, topics=("a/b",))) == ("a/b",)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"value": "x"}, "value", "leave it out"),
        ({"values": {"a": "b"}}, "values", "leave it out"),
        ({"time": "t"}, "time", "leave it out"),
        ({"status": ""}, "status", "leave it out"),
        ({"topic": "a/{signal}"}, "topic", "{signal}"),
        ({"topic": "a/#"}, "topic", "#"),
        ({"topic": "a/{what}"}, "topic", "unknown"),
        ({"topic": "a", "machine": ""}, "topic", "write `machine`"),
        ({"topics": ("a/#/b",)}, "topics[0]", "#"),
        ({"topics": ("a/x", "$share/g/a/b")}, "topics[1]", "$share"),
    ],
)
def test_keys_that_make_no_sense(context: SourceContext, name: str, keys: dict[str, Any], key: str, words: str) -> None:
    table: dict[str, Any] = {"machine": "m", **keys}
    with pytest.raises(ConfigError) as caught:
        validate(MqttConfig(url="mqtt://host", format=name, **table), context)
    assert caught.value.key == key
    assert words in str(caught.value)


def test_check_shows_what_a_device_says(mosquitto: Any, configure: Any, publisher: Any, context: SourceContext) -> None:
    broker = mosquitto()
    temperature = '{"actual": 210.5, "target": 210.0, "_timestamp": 1795000000}'
    publisher(broker).send("octoPrint/temperature/tool0", temperature, retain=True)
    config = configure(broker, format="octoprint", machine="prusa-1")
    lines = asyncio.run(check(config, context, seconds=0.3))
    assert [line.subject for line in lines if line.level == "fail"] == []
    (rate,) = (line for line in lines if "heard" in line.data)
    assert rate.data["heard"] == ["prusa-1/nozzle", "prusa-1/nozzle_target"]


def test_a_format_that_is_none() -> None:
    with pytest.raises(KeyError):
        load_format("csv")
