"""`fieldlab check` says how many false alarms the charts of a machine give by design."""

import json
from collections.abc import Callable
from typing import Any

CHARTS = """
[[chart]]
name = "each"
signals = ["*/load", "*/speed"]
per = "10s"
[[chart]]
name = "drift"
kind = "ewma"
signals = ["*/load"]
per = "reading"
"""


def test_the_alarm_load_of_a_machine(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], fieldlab: Callable[..., Any]
) -> None:
    server = opcua_server({"load": {"type": "Double", "value": 1.0}, "speed": {"type": "Double", "value": 2.0}})
    process = agent(server.source(["load", "speed"]) + CHARTS)
    done = fieldlab("check", process.config, "--json")
    assert done.code == 0, done.out
    (line,) = [line for line in json.loads(done.out)["lines"] if line["subject"].endswith(": false alarms")]
    assert line["text"].startswith("16 by design in a shift of 8 h, and what 1 charts of parts or readings add")
    assert "each on 2 signals: 1 in 370 (10s)" in line["text"]
    assert [load["channels"] for load in line["data"]["loads"]] == [2, 1]
