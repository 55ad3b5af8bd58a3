"""Errors as the person who must act sees them."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = '[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:1"\n'
OPCUA = (
    '[[source]]\nkind = "opcua"\nmachine = "m"\nurl = "opc.tcp://127.0.0.1:1"\nsecurity = "none"\n'
    '[[source.signal]]\nname = "a"\nnode = "nsu=urn:x;s=a"\n'
)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (SOURCE + 'topcs = ["a/#"]\n', ["fieldlab.toml:13: source[0].topcs", "did you mean `topics`?"]),
        (SOURCE + "in_flight = 'many'\n", ["fieldlab.toml:13: source[0].in_flight", "int"]),
        (SOURCE + 'protocol = "4"\n', ["fieldlab.toml:13: source[0].protocol"]),
        ('[[source]]\nkind = "mqtt"\nurl = "http://x"\n', ["fieldlab.toml:12: source[0].url", "mqtt://"]),
        ('[[source]]\nkind = "modbus"\n', ["fieldlab.toml:11: source[0].kind", "'modbus'", "opcua"]),
        (OPCUA + 'unt = "mm"\n', ["fieldlab.toml:18: source[0].signal[0].unt", "did you mean `unit`?"]),
        (OPCUA + 'lsl = "low"\n', ["fieldlab.toml:18: source[0].signal[0].lsl"]),
        (SOURCE + '[[store]]\nkind = "influxdb"\nurl = "http://x:1"\nbuckt = "a"\n', [":16: store[0].buckt", "bucket"]),
        (SOURCE + '[[store]]\nkind = "influxdb"\nurl = "x"\n', [":15: store[0].url", "http://host:port"]),
        (SOURCE + '[[chart]]\nsignals = ["m/a"]\nkind = "ewna"\n', [":15: chart[0].kind", "ewma"]),
        ("[source]\n", ["source"]),
        ("[agent]\n", ["is not TOML"]),
        ("", ["there is no [[source]]"]),
    ],
)
def test_a_wrong_configuration(
    agent: Callable[..., Any], fieldlab: Callable[..., Any], tables: str, words: list[str]
) -> None:
    process = agent(tables)
    done = fieldlab("agent", process.config)
    assert done.code == 2, done
    assert done.out == ""
    assert "Traceback" not in done.err
    message = done.err.strip().splitlines()[-1]
    assert message.startswith("fieldlab: ")
    assert all(word in message for word in words), message
    assert message.count("configuration:") == 0, message


def test_a_configuration_that_is_not_there(fieldlab: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (["agent", tmp_path / "no.toml"], ["status", "--config", tmp_path / "no.toml"]):
        done = fieldlab(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "no.toml: there is no such file" in done.err


def test_bad_usage(fieldlab: Callable[..., Any]) -> None:
    for arguments in ([], ["agnt"], ["agent"], ["demo", "--seconds", "soon"]):
        done = fieldlab(*arguments)
        assert done.code == 2
        assert "usage: fieldlab" in done.err


def test_status_without_an_agent(agent: Callable[..., Any], fieldlab: Callable[..., Any]) -> None:
    process = agent(SOURCE)
    done = fieldlab("status", "--config", process.config, "--json")
    assert (done.code, done.out) == (1, "")
    assert "no agent runs on" in done.err
    assert "fieldlab agent" in done.err
    assert not process.data.exists()


@pytest.mark.parametrize("what", ["missing", "open to others", "empty"])
def test_a_token_file(agent: Callable[..., Any], fieldlab: Callable[..., Any], what: str) -> None:
    process = agent(SOURCE + '[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:1"\ntoken_file = "token"\n')
    token = process.folder / "token"
    if what != "missing":
        token.write_text("" if what == "empty" else "hunter2\n")
        token.chmod(0o600 if what == "empty" else 0o644)
    for command in ("agent", "check"):
        done = fieldlab(command, process.config)
        assert done.code == (2 if command == "agent" else 1), done
        assert str(token) in done.err + done.out
        assert "hunter2" not in done.err + done.out
        assert "Traceback" not in done.err
    if what == "open to others":
        assert "chmod 600" in done.err + done.out


def test_a_second_agent_on_the_same_data(
    agent: Callable[..., Any], fieldlab: Callable[..., Any], mosquitto: Callable[..., Any], mqtt_source: Any
) -> None:
    process = agent(mqtt_source(mosquitto())).start()
    done = fieldlab("agent", process.config)
    assert done.code == 1
    assert f"another agent uses the data folder {process.data}" in done.err
    assert "Traceback" not in done.err
    assert process.status()["ready"]
    assert process.stop() == 0
    assert not (process.data / "agent.sock").exists()


def test_a_taken_port(agent: Callable[..., Any], fieldlab: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = fieldlab("agent", agent(SOURCE, http=address).config, timeout=20)
    assert done.code == 1
    assert f"[agent] http = '{address}' cannot be used" in done.err
    assert "Traceback" not in done.err
    assert fieldlab("agent", agent(SOURCE, http="nonsense").config, timeout=20).code in (1, 2)


def test_a_data_folder_that_cannot_be(agent: Callable[..., Any], fieldlab: Callable[..., Any]) -> None:
    process = agent(SOURCE)
    process.data.write_text("a file")
    done = fieldlab("agent", process.config)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert str(process.data) in done.err


def test_a_store_that_is_not_installed(agent: Callable[..., Any], fieldlab: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError(\"No module named 'duckdb'\", name='duckdb')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    for table in ('[[store]]\nkind = "embedded"\n', ""):
        done = fieldlab("agent", agent(SOURCE + table).config, PYTHONPATH=path)
        assert done.code == 2, done
        assert "Traceback" not in done.err
        assert "needs duckdb" in done.err
        assert "pip install '.[embedded]'" in done.err


def test_servers_that_appear_later(
    agent: Callable[..., Any],
    mosquitto: Callable[..., Any],
    opcua_server: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto(start=False)
    server = opcua_server({"load": {"type": "Double", "value": 3}}, start=False)
    process = agent(mqtt_source(broker) + server.source(["load"]))
    process.start(connected=False)
    wait_until(lambda: all(s["error"] for s in process.status()["sources"]), 20.0, "both say what is wrong")
    done = fieldlab("status", "--config", process.config)
    assert done.code == 1
    assert "NOT READY" in done.out
    for name, url in (("mqtt-0", broker.url), ("opcua-1", server.url)):
        line = next(line for line in done.out.splitlines() if name in line)
        assert url in line
        assert "NOT CONNECTED" in line
    broker.start()
    server.start()
    wait_until(lambda: process.status()["ready"], 40.0, "both connected")
    publish(broker).send([("fieldlab/drachten/shavers/3/robot-1/load", '{"value": 1, "ts": 1763900000}')])
    wait_until(lambda: process.ledger()["committed"] == 2, 20.0, "a reading of each")
    assert all(s["error"] == "" for s in process.status()["sources"])
    assert fieldlab("status", "--config", process.config).code == 0
    assert process.stop() == 0
    assert process.troubles == []
