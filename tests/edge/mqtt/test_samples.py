"""The samples of the MQTT source and of Sparkplug B, as they stand, in a whole agent; those of devices: `tests/agent`.

What a README shows is what its sample holds.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

import edge.sources.mqtt
from fieldlab.cli.common import ask_agent

FOLDER = Path(edge.sources.mqtt.__file__).parent
FORMATS = ("octoprint", "moonraker", "bambu", "vda5050", "sparkplug")


def sample(folder: Path, broker: Any, made: Path) -> Path:
    """The sample of a folder, at `broker`."""
    text = (folder / "sample.toml").read_text("utf-8")
    user = f'url = "{broker.url}"\nusername = "{broker.user}"\npassword_file = "{broker.password_file}"'
    text = re.sub(r'^url = ".*?"', user, text, flags=re.MULTILINE)
    text = re.sub(r"^data = .*$", 'data = "data"\nhttp = ""', text, flags=re.MULTILINE)
    file = made / "sample.toml"
    file.write_text(text, "utf-8")
    return file


def stored(data: Path) -> dict[str, int]:
    """Readings in the store, by path."""
    return {path: count for path, count in (ask_agent(data, "/query/counts") or {}).items() if count}


def test_json(mosquitto: Any, publisher: Any, live_agent: Any, tmp_path: Path, wait_until: Any) -> None:
    broker = mosquitto()
    with live_agent(sample(FOLDER, broker, tmp_path)) as data:
        now = time.time()
        publish = publisher(broker).send
        native = {"value": [1.5, 2.5], "ts": [now - 1, now], "status": 0}
        publish("fieldlab/drachten/shavers/3/printer-1/nozzle", json.dumps(native))
        publish("plant/press/sensors/force", json.dumps({"data": {"reading": 21.5}, "time": "2026-11-23T20:00:00Z"}))
        several = {"temps": {"tool0": {"actual": 210.0}}, "data": {"flow": 98, "fan": 0.5}}
        publish("plant/oven/telemetry", json.dumps(several))
        expected = {
            "drachten/shavers/3/printer-1/nozzle": 2,
            "drachten/shavers/3/press/force": 1,
            **{f"drachten/shavers/3/oven/{each}": 1 for each in ("nozzle", "flow", "fan")},
        }
        wait_until(lambda: stored(data) == expected, 30, what="every reading, once")


def test_sparkplug(
    mosquitto: Any, publisher: Any, edge_node: Any, live_agent: Any, tmp_path: Path, wait_until: Any
) -> None:
    broker = mosquitto()
    with live_agent(sample(FOLDER / "sparkplug", broker, tmp_path)) as data:
        n = edge_node("shavers", "line-3")
        speaker = publisher(broker)
        for topic, payload in (
            n.nbirth(n.metric("uptime", 1.5)),
            n.send("DBIRTH", n.metric("spindle/load", 50.0, alias=1), device="cnc-07"),
            n.send("DDATA", n.metric(None, 51.0, alias=1), device="cnc-07"),
        ):
            speaker.send(topic, payload)
        expected = {"drachten/shavers/line-3/line-3/uptime": 1, "drachten/shavers/line-3/cnc-07/spindle.load": 2}
        wait_until(lambda: stored(data) == expected, 30, what="the births and the data, once")


@pytest.mark.parametrize("name", FORMATS)
def test_a_readme_shows_what_its_sample_holds(name: str) -> None:
    def lines(text: str) -> set[str]:  # the address is the reader's own
        return {re.sub(r"\s+# .*", "", line).strip() for line in text.splitlines() if not line.startswith("url")} - {""}

    (block, *_) = re.findall(
        r"^```toml\n(.*?)^```", (FOLDER / name / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert lines(block) - lines((FOLDER / name / "sample.toml").read_text("utf-8")) == set()


@pytest.mark.parametrize("name", FORMATS)
def test_the_source_of_each_sample_message_is_said(name: str) -> None:
    folder = Path(__file__).parent / name
    words = "".join(path.read_text("utf-8")[:1500] for path in folder.glob("*.py"))
    assert re.search(r"Source of the samples?:|npm's (sparkplug-payload|encoder)", words)
