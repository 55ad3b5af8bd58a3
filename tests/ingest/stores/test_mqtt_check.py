"""`fieldlab check` of the MQTT store: the plan, the rights, the host."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fieldlab.config import Duration
from ingest.stores import load_kind
from ingest.stores.base import StoreContext
from ingest.stores.mqtt.config import MqttConfig, SparkplugConfig


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    def run(broker: Any, **keys: Any) -> list[tuple[str, str]]:
        config = MqttConfig(
            url=broker.url, username=broker.user, password_file=broker.password_file, timeout=Duration(2), **keys
        )
        context = StoreContext(name="uns", agent="line-3", data=tmp_path, place="drachten/shavers/3")
        return [(line.level, line.text) for line in load_kind("mqtt").check(config, context)]

    return run


def test_it_shows_the_plan_and_the_rights(mosquitto: Callable[..., Any], checked: Any, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("user fieldlab\ntopic write fieldlab/+/+/+/cnc-07/#\ntopic write spBv1.0/plant/#\n")
    acl.chmod(0o600)
    broker = mosquitto(config=[f"acl_file {acl}"])
    lines = checked(broker, readings=True, signals=("cnc-07/*", "printer-1/nozzle"))
    assert [level for level, _ in lines] == ["ok", "ok", "ok", "ok", "fail"]
    assert "fieldlab/drachten/shavers/3/<machine>/<signal>" in lines[2][1]
    assert lines[3][1] == "may publish on fieldlab/drachten/shavers/3/cnc-07/_check"
    assert "may not publish on fieldlab/drachten/shavers/3/printer-1/_check: Not authorized" in lines[4][1]
    assert [level for level, _ in checked(broker, protocol="3.1.1")] == ["ok", "ok", "ok", "warn"]
    broker.kill()
    assert [level for level, _ in checked(broker)] == ["fail"]


def test_it_looks_for_the_host_of_an_edge_node(mosquitto: Callable[..., Any], checked: Any) -> None:
    broker = mosquitto()
    keys = {"format": "sparkplug", "sparkplug": SparkplugConfig(group="plant", host="scada")}
    lines = checked(broker, **keys)
    assert [level for level, _ in lines] == ["ok", "ok", "ok", "ok", "ok", "warn"]
    assert "spBv1.0/plant/DDATA/line-3/{machine}; they wait for host 'scada'" in lines[2][1]
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(broker.user, broker.password)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        for online, level in (("false", "warn"), ("true", "ok")):
            body = f'{{"online": {online}, "timestamp": 1}}'
            client.publish("spBv1.0/STATE/scada", body, qos=1, retain=True).wait_for_publish(10)
            assert checked(broker, **keys)[-1][0] == level
    finally:
        client.disconnect()
        client.loop_stop()
