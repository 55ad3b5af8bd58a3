"""`[[action]]` tables: what is off, what is refused with key and line, what a trigger makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.actions.command import CallMethod, WriteNode
from edge.actions.config import LONGEST_TEXT, ActionConfig, command_of
from edge.config import AgentConfig, load
from fieldlab.errors import ConfigError

HEAD = """[agent]
name = "line-3"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1"
[[source]]
kind = "opcua"
machine = "cnc-07"
url = "opc.tcp://127.0.0.1:4840"
[[source.signal]]
name = "load"
node = "nsu=urn:x;s=load"
[[source]]
kind = "opcua"
machine = "cnc-08"
security = "none"
url = "opc.tcp://127.0.0.1:4841"
[[source.signal]]
name = "load"
machine = "robot-1"
node = "nsu=urn:x;s=load"
[[source.signal]]
name = "load"
node = "nsu=urn:x;s=load8"
[[source]]
kind = "opcua"
machine = "cnc-08"
url = "opc.tcp://127.0.0.1:4842"
[[source.signal]]
name = "speed"
node = "nsu=urn:x;s=speed"
"""
WRITE = 'write = { node = "nsu=urn:x;s=hold", value = true }\n'


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], AgentConfig]:
    """`read(tables)`: the configuration with these tables."""

    def make(tables: str) -> AgentConfig:
        file = tmp_path / "fieldlab.toml"
        file.write_text(HEAD + tables, "utf-8")
        return load(file)

    return make


def action(more: str = WRITE, *, name: str = "hold", on: str = "finding", source: str = '"cnc-07"') -> str:
    return f'[[action]]\nname = "{name}"\non = "{on}"\nsource = {source}\n{more}'


def test_without_tables_there_are_none(read: Any) -> None:
    assert read("").actions == ()


def test_what_is_not_written_is_careful(read: Any) -> None:
    (bound,) = read(action()).actions
    assert bound.source == 1
    config = bound.config
    assert (config.dry_run, config.limit, float(config.max_age), config.state) == (True, "6/h", 30.0, "raised")
    assert config.allow_insecure is False
    assert config.what == WriteNode(node="nsu=urn:x;s=hold", value=True)


def test_a_source_is_found_by_machine_or_index(read: Any) -> None:
    insecure = WRITE + "allow_insecure = true\n"
    tables = action(name="a") + action(insecure, name="b", source='"robot-1"') + action(name="c", source="3")
    assert [bound.source for bound in read(tables).actions] == [1, 2, 3]
    call = 'call = { object = "i=1", method = "i=2", arguments = [1, "x", [1.5, 2.5]] }\n'
    (bound,) = read(action(call)).actions
    assert bound.config.what == CallMethod(object="i=1", method="i=2", arguments=(1, "x", (1.5, 2.5)))


WRONG = [
    (action(""), "action[0]", "exactly one of `write` and `call`"),
    (action(WRITE + 'call = { object = "i=1", method = "i=2" }\n'), "action[0]", "exactly one"),
    (action(source='"nobody"'), "action[0].source", "does not exist; OPC UA sources here: cnc-07, cnc-08, robot-1"),
    (action(source="9"), "action[0].source", "does not exist"),
    (action(source="-1"), "action[0].source", "does not exist"),
    (action(source="0"), "action[0].source", "can only be read"),
    (action(source='"cnc-08"'), "action[0].source", "a machine of the sources 2, 3"),
    (action(source="2"), "action[0].source", "allow_insecure = true"),
    (action(on="reading"), "action[0].on", "Invalid enum value"),
    (action(name="a b"), "action[0].name", "letters"),
    (action() + action(), "action[1].name", "another [[action]] 'hold'"),
    (action(WRITE + 'limit = "often"\n'), "action[0].limit", "not understood"),
    (action(WRITE + 'limit = "0/h"\n'), "action[0].limit", "not understood"),
    (action(WRITE + 'limit = "2/s"\n'), "action[0].limit", "too much"),
    (action(WRITE + 'limit = "601/d"\n'), "action[0].limit", "too much"),
    (action(WRITE + 'max_age = "0s"\n'), "action[0].max_age", "at most 1h"),
    (action(WRITE + 'max_age = "2h"\n'), "action[0].max_age", "at most 1h"),
    (action(WRITE + 'verdict = "fail"\n'), "action[0].verdict", 'nothing with on = "finding"'),
    (action(WRITE + 'chart = "x"\n', on="verdict"), "action[0].chart", 'nothing with on = "verdict"'),
    (action(WRITE + 'verdict = "pass"\n', on="verdict"), "action[0].verdict", "Invalid enum value"),
    (action(WRITE + "dry_rum = false\n"), "action[0].dry_rum", "did you mean `dry_run`?"),
    (action('write = { nod = "i=1", value = 1 }\n'), "action[0].write.nod", "did you mean `node`?"),
    (action('write = { node = "speed", value = 1 }\n'), "action[0].write.node", "must look like"),
    (action('write = { node = "ns=2;s=x", value = 1 }\n'), "action[0].write.node", "nsu=URI"),
    (action('write = { node = "nsu=urn:x;s={machine}", value = 1 }\n'), "action[0].write", "no placeholder"),
    (action('write = { node = "i=1", value = "{detail}" }\n'), "action[0].write", "unknown placeholder {detail}"),
    (action('write = { node = "i=1", value = "{finding.id}" }\n', on="verdict"), "action[0].write", "unknown"),
    (action(f'write = {{ node = "i=1", value = "{"x" * 201}" }}\n'), "action[0].write", "at most 200 characters"),
    (action('call = { object = "i=1", method = "/*" }\n'), "action[0].call.method", "wildcard"),
]


@pytest.mark.parametrize(("tables", "key", "word"), WRONG, ids=[f"{k}-{w[:20]}" for _, k, w in WRONG])
def test_what_is_wrong_is_named_with_key_and_line(read: Any, tables: str, key: str, word: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tables)
    error = raised.value
    assert error.key == key
    assert word in error.message
    first = len(HEAD.splitlines()) + 1
    lines = (HEAD + tables).splitlines()
    assert error.line >= first
    named = lines[error.line - 1]
    assert named == "[[action]]" or key.split(".")[1] in named


@given(part=st.text(), chart=st.text())
def test_words_of_a_machine_stay_words(part: str, chart: str) -> None:
    """Whatever a machine calls its parts: a bounded text without control characters, and the node as it is written."""
    what = WriteNode(node="nsu=urn:x;s=note", value="part {part} of {chart}")
    config = ActionConfig(name="a", on="finding", source=0, write=what)
    found = command_of(config, {"part": part, "chart": chart}, 5)
    assert isinstance(found.what, WriteNode)
    assert found.what.node == what.node
    text = found.what.value
    assert isinstance(text, str)
    assert len(text) <= LONGEST_TEXT
    assert text.isprintable()
    assert (found.until, found.dry, found.signed) == (5, True, True)


def test_the_sample_loads_and_only_looks() -> None:
    config = load(Path(__file__).parents[3] / "edge" / "actions" / "sample.toml")
    assert [(a.config.name, a.config.dry_run) for a in config.actions] == [
        ("hold-on-drift", True),
        ("say-which-part-failed", True),
    ]
