"""Every device's sample configuration, in a whole agent: what a broker that plays the device says is stored, all of it,
and a print (or an order) becomes a part with start, end and verdict."""

import datetime as dt
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

import edge.sources.mqtt

FOLDER = Path(edge.sources.mqtt.__file__).parent
SERIAL = "01P00A000000000"


class Player:
    """A client that plays a device."""

    def __init__(self, broker: Any, certificate: Path | None = None) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(broker.user, broker.password)
        if certificate is not None:
            self.client.tls_set(str(certificate))
            self.client.tls_insecure_set(True)  # it is in the same test
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def _on_message(self, _client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.heard.append((message.topic, json.loads(message.payload)))

    def say(self, topic: str, payload: Any, *, qos: int = 1, retain: bool = False) -> None:
        body = payload if isinstance(payload, str) else json.dumps(payload)
        self.client.publish(topic, body, qos=qos, retain=retain).wait_for_publish(20)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def play() -> Iterator[Callable[..., Player]]:
    made: list[Player] = []

    def connect(broker: Any, certificate: Path | None = None) -> Player:
        made.append(Player(broker, certificate))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def sampled(agent: Any) -> Callable[..., Any]:
    """`sampled(format, broker, **changes)` runs the sample of a format against a broker."""

    def start(name: str, broker: Any, **changes: str) -> Any:
        made = agent("")
        text = (FOLDER / name / "sample.toml").read_text("utf-8")
        lines = []
        for line in text.splitlines():
            key = line.partition(" =")[0]
            if key == "data":
                lines.append('data = "data"')
            elif key == "url":
                lines.append(f'url = "{broker.url}"')
                if "username" not in text:
                    lines += [f'username = "{broker.user}"', f'password_file = "{broker.password_file}"']
            elif key in changes:
                lines.append(f'{key} = "{changes[key]}"')
            else:
                lines.append(line)
        made.config.write_text("\n".join(lines), "utf-8")
        return made.start()

    return start


def judged(made: Any, again: Callable[[], None], wait_until: Any) -> list[dict[str, Any]]:
    """The verdicts, once there are some; the machine goes on meanwhile, so that time goes on, too."""

    def verdicts() -> Any:
        again()
        return made.query("verdicts")

    found: list[dict[str, Any]] = wait_until(verdicts, 15.0, "a verdict")
    return found


def settled(made: Any, wait_until: Any, *, twice: int = 0) -> dict[str, int]:
    """The ledger, once nothing is under way: published = committed = stored, but for points that were told twice."""
    status = made.status()
    wait_until(lambda: made.settled() and made.ledger()["stored"] == made.ledger()["committed"], 40.0, "all is stored")
    ledger: dict[str, int] = made.ledger()
    (source,) = made.status()["sources"]
    assert ledger["received"] == source["counters"]["readings"] + source["counters"]["lost_points"]
    assert ledger["received"] == ledger["stored"] + twice
    assert ledger["rejected"] == ledger["dead"] == ledger["dropped"] == 0
    assert sum(made.query("counts").values()) == ledger["stored"], "the store has what the ledger says"
    assert source["counters"]["set_aside"] == 0
    assert status["sources"][0]["connected"]
    assert made.troubles == []
    return ledger


def test_octoprint(mosquitto: Any, sampled: Any, play: Any, wait_until: Any) -> None:
    broker = mosquitto()
    made = sampled("octoprint", broker)
    o = play(broker)
    at = int(time.time()) + 1  # the connection has the time of arrival: it may not be ahead of the rest

    def event(name: str, second: int, /, **payload: Any) -> None:
        o.say(f"octoPrint/event/{name}", {**payload, "_event": name, "_timestamp": at + second})

    o.say("octoPrint/mqtt", "connected", retain=True)
    event("PrinterStateChanged", 0, state_id="OPERATIONAL", state_string="Operational")
    for i, file in enumerate(("cap.gcode", "cap.gcode")):
        event("PrintStarted", 1 + 100 * i, name=file, path=file, origin="local")
        for k in range(10):
            heat = {"actual": 210.0 + k + 100 * i, "target": 210.0, "_timestamp": at + 2 + k + 100 * i}
            o.say("octoPrint/temperature/tool0", heat)
        event("PrintDone", 60 + 100 * i, name=file, path=file, time=59.0)
        event("PrinterStateChanged", 60 + 100 * i, state_id="OPERATIONAL", state_string="Operational")
    event("ZChange", 300, new=0.2, old=None)
    event("Startup", 301)
    wait_until(lambda: len(made.query("verdicts")) == 2, 10.0, "two prints")
    good, bad = sorted(made.query("verdicts"), key=lambda each: each["time"])
    ledger = settled(made, wait_until)
    assert ledger["received"] == 1 + 3 + 2 * (4 + 20 + 3 + 2) + 1
    assert (good["verdict"], good["start"], good["time"]) == ("pass", (at + 1) * 10**9, (at + 60) * 10**9)
    assert (bad["verdict"], bad["start"], bad["time"]) == ("fail", (at + 101) * 10**9, (at + 160) * 10**9)
    assert good["id"] != bad["id"]
    assert good["id"].startswith("cap.gcode-")
    path = "drachten/prototypes/printers/prusa-1/nozzle"
    assert values(made, path) == [210.0 + k + 100 * i for i in (0, 1) for k in range(10)]
    assert made.status()["sources"][0]["counters"]["ignored"] == 1


def test_a_print_goes_on_over_a_killed_agent(mosquitto: Any, sampled: Any, play: Any, wait_until: Any) -> None:
    broker = mosquitto()
    made = sampled("octoprint", broker)
    o = play(broker)
    at = int(time.time()) + 1

    def heat(second: int) -> None:
        o.say("octoPrint/temperature/tool0", {"actual": 210.0 + second, "target": 210.0, "_timestamp": at + second})

    o.say("octoPrint/event/PrintStarted", {"name": "cap.gcode", "path": "cap.gcode", "_timestamp": at})
    for second in range(10):
        heat(second)
    wait_until(lambda: made.ledger()["stored"] == 24)
    made.kill()
    for second in range(10, 20):
        heat(second)
    o.say("octoPrint/progress/printing", {"path": "cap.gcode", "progress": 50, "_timestamp": at + 20})
    made.start()
    o.say("octoPrint/event/PrintDone", {"name": "cap.gcode", "path": "cap.gcode", "time": 21.0, "_timestamp": at + 21})
    o.say("octoPrint/temperature/bed", {"actual": 60.0, "target": None, "_timestamp": at + 40})
    (verdict,) = judged(made, lambda: None, wait_until)
    assert (verdict["start"], verdict["time"]) == (at * 10**9, (at + 21) * 10**9)
    assert verdict["verdict"] == "suspect", "its start was the first that was ever heard"
    assert [each for each in values(made, "drachten/prototypes/printers/prusa-1/nozzle") if each is not None] == [
        210.0 + second for second in range(20)
    ]


def test_moonraker(mosquitto: Any, sampled: Any, play: Any, wait_until: Any) -> None:
    broker = mosquitto()
    made = sampled("moonraker", broker)
    m = play(broker)

    def say(qos: int = 0, **status: Any) -> None:
        m.say("voron-1/klipper/status", {"eventtime": time.monotonic(), "status": status}, qos=qos)

    m.say("voron-1/moonraker/status", {"server": "online"}, retain=True)
    ready = {"state": "ready", "state_message": "Printer is ready"}
    say(webhooks=ready, print_stats={"filename": "", "state": "standby", "message": ""}, extruder={"temperature": 21.0})
    say(print_stats={"filename": "cap.gcode", "state": "printing", "print_duration": 0.0})
    for k in range(50):
        say(extruder={"temperature": 210.0 + k / 10, "power": 0.4}, heater_bed={"temperature": 60.0})
    m.say("voron-1/klipper/state/heater_bed/target", {"eventtime": 1.0, "value": 60.0}, qos=1)
    say(print_stats={"state": "complete", "print_duration": 60.0})
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        say(extruder={"temperature": 200.0})

    (verdict,) = judged(made, beat, wait_until)
    m.say("voron-1/moonraker/status", {"server": "offline"}, retain=True)
    line = "drachten/prototypes/printers/voron-1"
    wait_until(lambda: len(values(made, f"{line}/connection")) == 2)
    ledger = settled(made, wait_until)
    assert verdict["verdict"] == "pass"
    assert verdict["id"].startswith("cap.gcode-")
    known = signals(made, "voron-1")
    lost = len(known) - 1
    assert ledger["received"] == 1 + 7 + 5 + 150 + 1 + 4 + len(beats) + 1 + lost
    assert ledger["bad"] == lost
    assert known["nozzle"]["guarantee"] == "from-receipt", "published at QoS 0"
    assert known["bed_target"]["guarantee"] == "end-to-end", "published at QoS 1"


def test_bambu(mosquitto: Any, sampled: Any, play: Any, wait_until: Any, tmp_path: Path) -> None:
    file, key, pin = certificate(tmp_path)
    listener = [f"certfile {file}", f"keyfile {key}"]
    broker = mosquitto(user="bblp", password="12345678", listener=listener, config=["log_type all"])
    broker.url = broker.url.replace("mqtt://", "mqtts://")
    printer = play(broker, file)
    printer.client.subscribe(f"device/{SERIAL}/request")
    made = sampled("bambu", broker, password_file=str(broker.password_file), pinned_certificate=pin)
    topic, number = f"device/{SERIAL}/report", [40_000]

    def say(message: int = 1, **fields: Any) -> None:
        number[0] += 1
        report = {**fields, "command": "push_status", "msg": message, "sequence_id": str(number[0])}
        printer.say(topic, {"print": report}, qos=0)

    wait_until(lambda: printer.heard, what="the printer is asked for everything")
    assert printer.heard[0][1]["pushing"]["command"] == "pushall"
    say(0, gcode_state="IDLE", subtask_name="cap", nozzle_temper=25.0, bed_temper=24.0, print_error=0, hms=[])
    say(gcode_state="RUNNING", nozzle_temper=220.0)
    for k in range(50):
        say(nozzle_temper=220.0 + k / 10, layer_num=k, mc_percent=2 * k)
    say(gcode_state="FINISH", mc_percent=100)
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        say(bed_temper=50.0)

    (verdict,) = judged(made, beat, wait_until)
    ledger = settled(made, wait_until)
    assert verdict["verdict"] == "pass"
    assert verdict["id"].startswith("cap-")
    assert ledger["received"] == 7 + 4 + 150 + 4 + len(beats)
    assert {each["guarantee"] for each in signals(made, "p1s-1").values()} == {"from-receipt"}
    assert len(printer.heard) == 1
    subscribed = re.findall(r"print-farm-0 \d (device/\S+)", broker.log)
    assert subscribed == [topic], "the requests are never subscribed to"
    assert made.stop() == 0


def test_vda5050(mosquitto: Any, sampled: Any, play: Any, wait_until: Any) -> None:
    broker = mosquitto()
    made = sampled("vda5050", broker)
    v = play(broker)
    start = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    numbers: dict[str, int] = {}

    def say(topic: str, second: float, *, qos: int = 0, lost: int = 0, **fields: Any) -> None:
        numbers[topic] = numbers.get(topic, 0) + 1 + lost
        stamp = (start + dt.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        header = {"headerId": numbers[topic], "timestamp": stamp, "manufacturer": "KIT", "serialNumber": "0001"}
        v.say(f"uagv/v2/KIT/0001/{topic}", {**header, "version": "2.0.0", **fields}, qos=qos)

    def state(second: float, order: str, *, busy: bool, lost: int = 0) -> None:
        fields: dict[str, Any] = {
            "orderId": order,
            "nodeStates": [{"nodeId": "n"}] if busy else [],
            "edgeStates": [],
            "actionStates": [],
        }
        battery = {"batteryCharge": 80.0, "charging": False}
        position = {"x": second, "y": 1.0, "theta": 0.0, "mapId": "hall-3"}
        say("state", second, lost=lost, agvPosition=position, batteryState=battery, driving=busy, **fields)

    say("connection", 0, qos=1, connectionState="ONLINE")
    state(0, "", busy=False)
    for second in range(10):
        state(1 + second, "order-17", busy=True, lost=3 if second == 5 else 0)
        position = {"x": 1 + second, "y": 1.0, "theta": 0.0, "mapId": "hall-3"}
        say("visualization", 1 + second, agvPosition=position)
    state(12, "order-17", busy=False)
    state(30, "order-18", busy=True)
    (verdict,) = judged(made, lambda: None, wait_until)
    say("connection", 31, qos=1, connectionState="OFFLINE")
    path = "drachten/logistics/hall-3/0001"
    wait_until(lambda: len(values(made, f"{path}/connection")) == 2)
    ledger = settled(made, wait_until, twice=10 * 4)
    known = signals(made, "0001")
    each, lost = 10, len(known) - 1
    assert (verdict["id"], verdict["verdict"]) == ("order-17", "pass")
    assert ledger["received"] == 1 + 13 * each + 10 * 4 + 1 + lost
    assert ledger["overflow"] == 3 * each, "three states are known to be lost, with all that they would have said"
    positions = [value for value in values(made, f"{path}/x") if value is not None]
    assert positions == [0.0, *(1.0 + s for s in range(10)), 12.0, 30.0], "state and visualization are one series"
    assert ledger["bad"] == lost


def values(made: Any, path: str) -> list[Any]:
    """What the store has of a signal."""
    found: list[Any] = made.query(f"telemetry?signal={path}")["value"]
    return found


def signals(made: Any, machine: str) -> dict[str, dict[str, Any]]:
    """What the store knows of a machine's signals, by name."""
    return {each["key"]["name"]: each for each in made.query("signals") if each["key"]["place"]["machine"] == machine}


def certificate(folder: Path) -> tuple[Path, Path, str]:
    """A certificate that signed itself, its key and its fingerprint."""
    folder.chmod(0o755)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERIAL)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / "printer.pem", folder / "printer.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file, secret, made.fingerprint(hashes.SHA256()).hex(":").upper()
