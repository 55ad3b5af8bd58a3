"""Discovery of what nobody should publish: hostile names and payloads, too many topics, too much of them.

What is printed is always TOML that loads, and its sources read exactly what was said to be read. `FIELDLAB_FUZZ` says
how many examples; 100 by default.
"""

import fnmatch
import json
import os
import time
import tomllib
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge.config import load
from edge.proposal import Frame, Proposal, to_toml
from edge.sources.base import SourceContext
from edge.sources.mqtt.config import filters_of
from edge.sources.mqtt.discovery.heard import Tally
from edge.sources.mqtt.discovery.proposing import propose
from edge.sources.mqtt.discovery.replay import Replay
from edge.sources.mqtt.topics import matches

FUZZ = int(os.environ.get("FIELDLAB_FUZZ", "100"))
NOW = time.time_ns()
KEYS = {"kind": "mqtt", "url": "mqtt://127.0.0.1:1883", "protocol": "5"}
# What TOML, globs, templates, paths and topics could take for something else, and what cannot be printed.
NASTY = "\"'\\\n\r\t\x01\x7f\x85\u2028\ufeff\u202e\U0001f600é$_{}[]*?!.=#,: ~-ab0"
LEVEL = st.text(NASTY.replace("#", ""), max_size=6) | st.sampled_from(
    [
        "a",
        "b",
        "machine",
        "signal",
        "{machine}",
        "{signal}",
        "_x",
        "$share",
        "state",
        "mqtt",
        "event",
        "device",
        "klipper",
    ]
)
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(lambda t: bool(t) and t[0] != "$")
KEY = st.text(NASTY, max_size=5) | st.sampled_from(
    ["value", "ts", "status", "unit", "time", "print", "_timestamp", "data"]
)
SCALAR = st.floats(allow_nan=False) | st.integers(-9, 2**64) | st.booleans() | st.text(NASTY, max_size=5) | st.none()
JSON = st.recursive(
    SCALAR, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEY, below, max_size=4), max_leaves=8
)
PAYLOAD = JSON.map(lambda each: json.dumps(each, ensure_ascii=False).encode(errors="replace")) | st.binary(max_size=8)


def context(**place: str) -> SourceContext:
    names = {"site": "site", "area": "area", "line": "line", **place}
    return SourceContext(name="mqtt-0", agent="edge-1", index=0, data=Path("unused"), **names)


def heard(messages: list[tuple[str, bytes]]) -> Tally:
    tally = Tally()
    for i, (topic, payload) in enumerate(messages):
        tally.add(topic, payload, NOW + i, retained=False)
    return tally


def read_back(proposal: Proposal, tally: Tally, folder: Path) -> set[str]:
    """Load what is printed; machine/signal of everything that its sources read of all that was heard."""
    text = to_toml(proposal, Frame())
    tomllib.loads(text)
    file = folder / "line.toml"
    file.write_text(text, "utf-8")
    config = load(file)
    owned: dict[Any, str] = {}
    for i, source in enumerate(config.sources):
        made: Any = source.config
        keys = {name: getattr(made, name) for name in made.__struct_fields__}
        replay = Replay(keys, context())
        messages = sorted((m for each in tally.topics.values() for m in each.kept), key=lambda m: m.order)
        replay.play(m for m in messages if any(matches(each, m.topic) for each in filters_of(made)))
        for topic, why in replay.errors.items():  # of a topic that is read, some payloads may still be refused
            assert topic in replay.read or any(t.topic == topic and t.not_read for t in proposal.topics), (topic, why)
        for key, found in replay.signals.items():
            if found.kinds:
                assert len(found.topics) == 1 or made.format != "json", "two topics in one signal"
                assert owned.setdefault(key, f"{i}") == f"{i}", "two sources of one signal"
    names = {key.short for key in owned}
    for chart in config.charts:
        for glob in chart.signals:
            assert any(fnmatch.fnmatchcase(name, glob) for name in names), glob
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=st.lists(st.tuples(TOPIC, PAYLOAD), min_size=1, max_size=6))
@example(messages=[("a/{machine}/b", b"1.5"), ("a/c/b", b"2.5")])
@example(messages=[("x/m/temp", b"1.5"), ("y/m/temp", b"2.5"), ("x/m/temp/z", b'{"a": 1, "b": {"*": 2}}')])
@example(messages=[('a"b\\c/\U0001f600/[x]*?', b'{"value": 1.5, "unit": "\\"\\n]"}')])
@example(messages=[("p/q", b'{"a/b": 1.5, "a#b": 2.5, "_c": 3, "d.e": 4, "": 5}'), ("p/r", b'{"a/b": "x"}')])
@example(
    messages=[("octoPrint/mqtt", b"connected"), ("octoprint/mqtt", b"connected"), ("a/octoPrint/mqtt", b"connected")]
)
def test_whatever_is_published_the_configuration_loads_and_reads(
    messages: list[tuple[str, bytes]], folder: Path
) -> None:
    tally = heard(messages)
    proposal = propose(tally, dict(KEYS), context(), seconds=1.0)
    said = {f"{machine.name}/{signal.name}" for machine in proposal.machines for signal in machine.signals}
    if not proposal.sources:
        assert said == set()
        return
    assert read_back(proposal, tally, folder) == said
    for each in proposal.topics:
        assert each.format or each.not_read, f"{each.topic!r} is read, or it is said why not"


VDA = {"headerId": 1, "timestamp": "2026-05-21T12:00:00Z", "manufacturer": "m", "serialNumber": "s", "driving": True}
NAME = st.text(NASTY.replace("#", "") + "/", max_size=5) | st.sampled_from(["a", "b", "a/b", "_x", "x/_y", "{line}"])


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    devices=st.lists(
        st.tuples(st.sampled_from(("moonraker", "octoprint", "vda5050", "bambu")), NAME), min_size=1, max_size=5
    )
)
@example(
    devices=[("moonraker", "a"), ("octoprint", "a"), ("vda5050", "u/v/a/a"), ("vda5050", "u/v/b/a"), ("bambu", "a")]
)
@example(devices=[("moonraker", "/"), ("octoprint", "a/"), ("octoprint", "b/"), ("vda5050", "//"), ("bambu", "/x")])
@example(devices=[("vda5050", "_x"), ("vda5050", "{line}")])
@example(devices=[("vda5050", "/0"), ("vda5050", "0/:")])
@example(devices=[("octoprint", "_a/x"), ("octoprint", "b/y"), ("octoprint", "c/z")])
@example(devices=[("octoprint", "farm/a/x"), ("octoprint", "farm/b/x"), ("octoprint", "farm/b/y"), ("octoprint", "_n")])
def test_devices_with_any_names(devices: list[tuple[str, str]], folder: Path) -> None:
    made = {
        "moonraker": ("klipper/state/extruder/temperature", {"eventtime": 1.0, "value": 210.5}),
        "octoprint": ("temperature/bed", {"actual": 60.5, "target": 60, "_timestamp": NOW // 10**9}),
        "vda5050": ("state", VDA),
        "bambu": ("report", {"print": {"command": "push_status", "msg": 1, "bed_temper": 55.5}}),
    }
    messages = [
        (f"{'device/' if form == 'bambu' else ''}{name}/{made[form][0]}", json.dumps(made[form][1]).encode())
        for form, name in devices
        if name and not name.startswith("$")
    ]
    tally = heard(messages)
    proposal = propose(tally, dict(KEYS), context(), seconds=1.0)
    said = {f"{machine.name}/{signal.name}" for machine in proposal.machines for signal in machine.signals}
    assert not proposal.sources or read_back(proposal, tally, folder) == said


def test_a_hundred_thousand_topics_are_counted_and_bounded() -> None:
    tally = Tally(octets=4_000_000)
    tracemalloc.start()
    for i in range(100_000):
        tally.add(f"plant/m{i % 1000}/signal-{i}", b'{"value": 1.5, "ts": 1763900000}', NOW, retained=False)
    for i in range(3_000):  # what is not kept, and a few topics of great length
        tally.add(f"plant/m{i % 1000}/signal-{i}", b"9" * 60_000, NOW, retained=False)
        tally.add(f"long/{'x' * 60_000}{i}", b"1.5", NOW, retained=False)
    tally.add("voron/klipper/status", b'{"eventtime": 1, "status": {"fan": {"speed": 0.5}}}', NOW, retained=False)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tally.topics) <= 10_001
    assert size < 24_000_000
    assert tally.messages == 106_001
    assert tally.beyond == 93_000, "topics beyond the cap, and those for whose name there is no room"
    proposal = propose(tally, dict(KEYS), context(), seconds=1.0)
    assert any("93000 messages were on topics beyond the first" in note for note in proposal.notes)
    assert "voron" in {machine.name for machine in proposal.machines}, "a printer is found among them"
    assert len(to_toml(proposal, Frame())) < 3_000_000
