"""What may stand in the table, and what its errors say."""

import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.base import SourceContext
from edge.sources.opcua import KIND, OpcuaConfig, declared
from edge.sources.opcua.config import OpcuaEvents, OpcuaSignal, queue_size, read_password, validate
from edge.sources.opcua.nodes import NodeAddress, UnknownNamespaceError
from fieldlab.config import Document, Duration
from fieldlab.errors import ConfigError

SAMPLE = Path(__import__("edge.sources.opcua").sources.opcua.__file__).parent / "sample.toml"
CONTEXT = SourceContext(
    name="opcua-0", agent="line-3", index=0, site="drachten", area="shavers", line="3", data=Path("data")
)


def config(**keys: Any) -> Any:
    signal = keys.pop("signal", (OpcuaSignal(name="a", node="nsu=urn:x;s=a"),))
    return OpcuaConfig(**{"kind": "opcua", "url": "opc.tcp://h:4840", "machine": "m", "signal": signal, **keys})


def test_the_sample_is_a_whole_configuration(sink: Any) -> None:
    document = Document(SAMPLE)
    found = document.bind(OpcuaConfig, document.data["source"][0], "source[0]")
    validate(found, CONTEXT)
    known = declared(found, CONTEXT)
    assert [d.key.path for d in known][:2] == [
        "drachten/shavers/3/cnc-07/spindle_load",
        "drachten/shavers/3/cnc-07/coolant_temperature",
    ]
    assert known[0].info.usl == 95.0
    state = msgspec.structs.replace(found.signal[0], map={"0": "idle"}, scale=0.1)
    (mapped,) = declared(msgspec.structs.replace(found, signal=(state,)), CONTEXT)
    assert (mapped.map, mapped.info.states, mapped.scale) == ({"0": "idle"}, {"0": "idle"}, 0.1)
    assert found.signal[1].sampling == 1.0
    assert KIND.create(found, CONTEXT, sink).status().error == "not connected yet"


def test_an_unknown_key_is_named(tmp_path: Any) -> None:
    path = tmp_path / "a.toml"
    path.write_text(SAMPLE.read_text("utf-8").replace("sampling =", "smpling ="), "utf-8")
    document = Document(path)
    with pytest.raises(ConfigError, match=r"source\[0\].signal\[1\].smpling: unknown key; did you mean `sampling`"):
        document.bind(OpcuaConfig, document.data["source"][0], "source[0]")


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"url": "opc.tcp://h"}, "url", "with the port"),
        ({"url": "http://h:80"}, "url", "must look like"),
        ({"url": "opc.tcp://h:99999999"}, "url", "must look like"),
        ({"url": "opc.tcp://me:secret@h:4840"}, "url", "password_file"),
        ({"signal": ()}, "signal", "at least one"),
        ({"machine": ""}, "signal[0].machine", "needs a machine"),
        ({"machine": "a/b"}, "signal[0].name", "may not hold"),
        ({"publish_requests": 0}, "publish_requests", "1 to 100"),
        ({"events": (OpcuaEvents(node="/Objects/*"),)}, "events[0].node", "one notifier"),
        ({"events": (OpcuaEvents(node="press"),)}, "events[0].node", "must look like"),
        ({"events": (OpcuaEvents(), OpcuaEvents(types=()))}, "events[1].types", "AlarmConditionType"),
        ({"events": (OpcuaEvents(severity=1001),)}, "events[0].severity", "0 to 1000"),
        ({"events": (OpcuaEvents(queue=1),)}, "events[0].queue", "2 to"),
        ({"events": (OpcuaEvents(),), "signal": (), "machine": ""}, "events[0].machine", "needs a machine"),
        ({"events": (OpcuaEvents(),), "mode": "poll"}, "events", "subscription"),
        ({"interval": Duration(0)}, "interval", "more than zero"),
        ({"queue": 0}, "signal[0].queue", "at least 1"),
        ({"password_file": Path("x")}, "password_file", "username"),
        ({"signal": (OpcuaSignal(name="a", node="s=a"), OpcuaSignal(name="a", node="s=b"))}, "signal[1].name", "alr"),
        ({"signal": (OpcuaSignal(name="a", node="cnc.a"),)}, "signal[0].node", "must look like nsu="),
    ],
)
def test_errors_name_the_key(keys: Any, key: Any, words: Any) -> None:
    with pytest.raises(ConfigError) as e:
        validate(config(**keys), CONTEXT)
    assert e.value.key == key
    assert words in str(e.value)
    assert "secret" not in str(e.value)


def test_a_source_may_have_events_alone() -> None:
    validate(config(signal=(), events=(OpcuaEvents(),)), CONTEXT)


def test_security_that_is_not_understood(sink: Any) -> None:
    with pytest.raises(ConfigError, match="Aes256_Sha256_RsaPss"):
        KIND.create(config(security="Basic256/Sign"), CONTEXT, sink)


def test_a_password_file_must_be_private(tmp_path: Any) -> None:
    path = tmp_path / "password"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_password(config(username="u", password_file=path))
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_password(config(username="u", password_file=path))
    path.chmod(0o600)
    assert read_password(config(username="u", password_file=path)) == "secret"


def test_queues_hold_ten_publishes_at_least() -> None:
    signal = OpcuaSignal(name="a", node="s=a")
    assert queue_size(config(), signal) == 10
    fast = msgspec.structs.replace(signal, sampling=Duration(0.01))
    assert queue_size(config(), fast) == 100
    assert queue_size(config(queue=7), fast) == 7
    assert queue_size(config(queue=7), msgspec.structs.replace(fast, queue=3)) == 3
    assert queue_size(config(), msgspec.structs.replace(signal, sampling=Duration(0))) == 1000


NAMESPACES = ["http://opcfoundation.org/UA/", "urn:server", "urn:a;b"]


@pytest.mark.parametrize(
    ("text", "index", "identifier"),
    [
        ("i=2258", 0, 2258),
        ("ns=1;i=7", 1, 7),
        ("nsu=urn:server;s=a;b=c", 1, "a;b=c"),
        ("nsu=urn:a%3Bb;s=x", 2, "x"),
        ("nsu=urn:server;g=72962b91-fa75-4ae6-8d28-b404dc7daf63", 1, uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63")),
        ("nsu=urn:server;b=AQI=", 1, b"\1\2"),
    ],
)
def test_nodes_resolve(text: Any, index: Any, identifier: Any) -> None:
    found = NodeAddress.parse(text).resolve(NAMESPACES)
    assert (found.NamespaceIndex, found.Identifier) == (index, identifier)


@pytest.mark.parametrize("text", ["", "a", "s=", "ns=x;s=a", "i=-1", "i=4294967296", "g=1", "b=!", "ns=70000;s=a"])
def test_what_is_no_node(text: Any) -> None:
    with pytest.raises(ValueError, match="node"):
        NodeAddress.parse(text)


def test_a_namespace_that_is_not_there() -> None:
    for text in ("nsu=urn:nobody;s=a", "ns=3;s=a"):
        with pytest.raises(UnknownNamespaceError, match="has no namespace"):
            NodeAddress.parse(text).resolve(NAMESPACES)


@given(st.text())
def test_any_text_is_a_node_or_an_error_in_words(text: Any) -> None:
    try:
        NodeAddress.parse(text)
    except ValueError as e:
        assert "node" in str(e)  # noqa: PT017  either way is right
