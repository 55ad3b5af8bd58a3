"""`fieldlab limits` and `fieldlab report capability` beside a real agent, killed in between, and of its files alone."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fieldlab.cli.common import ask_agent

START = 1_763_900_000
TABLES = """
[[store]]
kind = "embedded"
[[signal]]
match = "mill/diameter"
lsl = 20.0
usl = 60.0
[[chart]]
name = "size"
signals = ["mill/diameter"]
baseline = 40
arl0 = 100000
limits_by = ["program"]
[[part]]
machine = "mill"
id = "part_id"
"""


def said(first: int, parts: int, program: str, middle: float) -> list[tuple[str, str]]:
    """Parts of ten seconds: the program, then ids, and three readings of each diameter."""
    noise = random.Random(first)
    found: list[tuple[str, str]] = []

    def say(signal: str, time: float, value: object) -> None:
        found.append((f"fieldlab/drachten/shavers/3/mill/{signal}", json.dumps({"value": value, "ts": time})))

    say("program", START + 10 * first, program)
    for part in range(first, first + parts):
        at = START + 10 * part
        say("part_id", at, f"P{part:04d}")
        diameter = middle + noise.gauss(0, 1)
        for i in range(3):
            say("diameter", at + 1 + i, round(diameter + noise.gauss(0, 0.05), 6))
    return found


def test_versions_beside_an_agent_and_without(
    agent: Callable[..., Any],
    mosquitto: Callable[..., Any],
    mqtt_source: Callable[..., str],
    publish: Callable[..., Any],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    process = agent(TABLES + mqtt_source(broker)).start()
    talk = publish(broker)

    def limits(*arguments: object, code: int = 0) -> dict[str, Any]:
        action, *rest = arguments
        done = fieldlab("limits", action, *rest, "--config", process.config, "--json")
        assert done.code == code, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    def judged(parts: int) -> None:
        wait_until(lambda: len(process.query("verdicts")) >= parts, 60.0, f"{parts} verdicts")

    talk.send(said(0, 60, "A", 30.0) + said(60, 60, "B", 50.0) + said(120, 20, "A", 33.0))
    judged(138)
    found = shown_by(process)
    shown = {v["recipe"]: (v["version"], round(v["center"]), v["in_force"], v["n"]) for v in found["versions"]}
    assert shown == {"A": (1, 30, True, 40), "B": (2, 50, False, 40)}
    assert "learned from 40 values" in found["versions"][0]["note"]

    (no,) = limits("freeze", "size", code=1)["asked"]  # the newest 40 of A: half of them at 30, half at 33
    assert (no["done"], no["version"]) == (False, 1)
    assert "these values are no baseline" in no["words"]
    start, end = (START + 10 * p for p in (121, 140))
    ranged = limits(
        "freeze", "size", "--signal", "mill/diameter", "--from", _iso(start), "--to", _iso(end)
    )["asked"]  # fmt: skip
    assert [(a["done"], a["recipe"]) for a in ranged] == [(True, "A")], ranged
    newest = shown_by(process)["versions"][-1]
    assert (newest["in_force"], newest["recipe"], round(newest["center"])) == (True, "A", 33)
    assert (newest["version"], bool(newest["by"])) == (3, True)

    process.kill()  # what was asked is in the journal: it is the same behind a kill
    process.start()
    assert shown_by(process)["versions"][-1] == newest
    talk.send(said(140, 10, "A", 33.0))
    judged(148)
    assert [v["limits_versions"]["size"] for v in process.query("verdicts")][:3] == [newest["version"]] * 3

    back = limits("freeze", "size", "--version", 1)["asked"]
    assert [(a["done"], a["words"]) for a in back] == [(True, "version 1 is back in force")]
    refused = limits("freeze", "size", "--version", 2, code=1)["asked"]
    assert refused[0]["words"] == "version 2 is of B"
    (diff,) = limits("diff", "size", 1, newest["version"])["signals"]
    assert diff["change"]["center"].startswith("+")
    assert (diff["old"]["version"], diff["new"]["version"]) == (1, newest["version"])
    assert fieldlab("limits", "diff", "size", 77, "--config", process.config).code == 1

    report = fieldlab("report", "capability", "--config", process.config, "--json")
    (size,) = json.loads(report.out)["signals"]
    assert (size["each"], size["n"]) == ("mean of a part", 149)
    assert "not stable" in size["not_stated"]["Cpk"]

    online = shown_by(process)
    assert process.stop() == 0
    assert limits("list") == online, "the files say what the agent said"
    assert limits("freeze", "size", "--recipe", "B")["asked"] == [], "it is granted when the agent runs again"
    assert "when it runs" in fieldlab("limits", "list", "--config", process.config).out
    process.start()
    wait_until(lambda: len(shown_by(process)["asked"]) > len(online["asked"]), 60.0, "the wish is answered")
    newest_asked = shown_by(process)["asked"][0]
    assert (newest_asked["recipe"], newest_asked["chart"]) == ("B", "size")


def shown_by(process: Any) -> dict[str, Any]:
    """What the agent says of its limits."""
    found: dict[str, Any] = ask_agent(process.data, "/limits")
    return found


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
