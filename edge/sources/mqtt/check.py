"""Tries a broker as the source would use it, without touching the source's session."""

import asyncio
import secrets
import select
import time
from collections import Counter
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.sources.base import CheckLine, SourceContext
from edge.sources.mqtt.client import MqttClient, refusal, unreachable
from edge.sources.mqtt.config import MqttConfig, filters_of, parse_url, validate
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.large import Large
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.tls import pin_of, shown_by
from edge.sources.mqtt.topics import is_shared, matches, plain_filter
from fieldlab.errors import ConfigError
from fieldlab.model import Guarantee, SignalInfo, SignalKey, SignalTable

LISTEN = 3.0  # s
_ANSWER = 5.0  # s
_DROPPED = "$SYS/broker/publish/messages/dropped"  # mosquitto's, and others'
_TOPICS_SHOWN = 50
_TOPICS_MAX = 10_000


class _Topic:
    """What was seen on one topic."""

    def __init__(self) -> None:
        self.messages = 0
        self.readings = 0
        self.value: float | str | None = None
        self.time = 0
        self.status = 0
        self.error = ""
        self.errors = 0


class Probe:
    """One short connection: random client id, clean start, QoS 0, no will; a shared filter is tried as a plain one."""

    def __init__(self, config: MqttConfig, context: SourceContext) -> None:
        self.config = config
        self.broker = parse_url(config.url)
        self.filters = filters_of(config)
        self.asked = tuple(dict.fromkeys(plain_filter(each) for each in self.filters))
        self.refused: dict[str, str] = {}
        self.topics: dict[bytes, _Topic] = {}
        self.heard: set[str] = set()
        self.skipped: Counter[str] = Counter()
        self.dropped: str = ""
        # A Bambu printer may end the session of those who subscribe to more than its reports.
        self.beside = () if config.format == "bambu" else (_DROPPED,)
        self.error = ""
        self.answered = False
        self._table = SignalTable()
        self._dialect = dialect_of(config, context, self)
        self._id = f"fieldlab-check-{secrets.token_hex(6)}"
        self.client = MqttClient(config, self.broker, self._id, self._receive, clean=True)
        self.client.receive_large = self._large
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:  # noqa: ARG002  # as in Sink
        """As in `Signals`: nothing is kept but the number."""
        return self._table.index(info.key)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:  # noqa: ARG002  # as in Sink
        """As in `Signals`."""
        return self._table.index(key)

    def run(self, seconds: float) -> None:
        """Connect, subscribe, and listen for `seconds`; what went wrong is in `error`."""
        client = self.client
        hint = '; if it speaks no MQTT 5, write protocol = "3.1.1"' if self.config.protocol == "5" else ""
        try:
            client.open()
            self._pump(_ANSWER, until_answered=True)
            if client.socket() is None:
                self.error = self.error or f"the broker closes the connection before it answers{hint}"
            elif not self.answered:
                self.error = f"the broker takes connections but does not answer within {_ANSWER:.0f} s{hint}"
            else:
                self._pump(seconds)
                client.disconnect()
        except (OSError, ValueError, ConfigError) as e:
            self.error = unreachable(e, self.broker)
        finally:
            client.drop()

    def _pump(self, seconds: float, *, until_answered: bool = False) -> None:
        """Drive the client for `seconds`."""
        client = self.client
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (until_answered and self.answered):
            sock: Any = client.socket()
            if sock is None:
                if not until_answered:
                    self.error = self.error or "the broker closed the connection while we listened"
                return
            poll = select.poll()
            poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            if getattr(sock, "pending", int)() > 0 or poll.poll(left * 1000):
                client.budget = 1000
                client.loop_read()
            if client.want_write():
                client.loop_write()
            client.loop_misc()

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.error = refusal(reason, self.config, self._id)
        else:
            self.client.subscribe_to((*self.asked, *self.beside), qos=0)

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self.answered = True
        self.refused = {each: str(why) for each, why in zip(self.asked, reasons, strict=False) if why.is_failure}

    def _receive(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        del mid, qos, redelivered
        if topic == _DROPPED.encode():
            self.dropped = payload.decode(errors="replace")
            return
        if topic not in self.topics and len(self.topics) >= _TOPICS_MAX:
            self.skipped["beyond the first 10,000 topics"] += 1
            return
        rows = Rows()
        seen = self.topics.get(topic) or _Topic()
        try:
            seen.readings += self._dialect.read(topic, payload, arrival, rows, retained=retained, qos=1)
        except Ignored as e:
            self.skipped[e.reason] += 1
            return
        except ValueError as e:
            seen.error = str(e)
            seen.errors += 1
        self.topics[topic] = seen
        seen.messages += 0 if retained else 1
        if len(rows):
            batch = rows.build()
            last = len(batch) - 1
            self.heard |= {self._table[index].short for index in set(batch.signal.tolist())}
            number = float(batch.value[last])
            seen.value = batch.texts().get(last, None if number != number else number)  # noqa: PLR0124  # NaN
            seen.time, seen.status = int(batch.time[last]), int(batch.status[last])

    def _large(self, large: Large) -> None:
        if large.topic in self.topics or len(self.topics) < _TOPICS_MAX:
            seen = self.topics.setdefault(large.topic, _Topic())
            seen.messages += 1
            seen.errors += 1
            seen.error = large.reason(self.config.max_payload)


async def check(config: MqttConfig, context: SourceContext, *, seconds: float = LISTEN) -> list[CheckLine]:
    """Connect, subscribe and listen for `seconds`, then say what was found; see `SourceKind.check`."""
    try:
        validate(config, context)
        probe = Probe(config, context)
    except ConfigError as e:
        return [CheckLine(level="fail", subject=context.name, text=str(e), data={"key": e.key})]
    await asyncio.to_thread(probe.run, seconds)
    lines = _lines(probe, context.name, seconds)
    return [*lines, *await asyncio.to_thread(_certificate_lines, probe, context.name)]


def _certificate_lines(probe: Probe, name: str) -> list[CheckLine]:
    """The certificate that the broker shows, and how to pin it."""
    if not probe.broker.tls:
        return []
    try:
        shown = shown_by(probe.broker, probe.config.server_name or probe.broker.host, _ANSWER)
        pin = pin_of(probe.config)
    except (OSError, ConfigError):
        return []  # what is wrong was said by the probe
    if pin:
        words = "it is the pinned one" if shown == pin else "it is not the pinned one"
    else:
        words = f'after you compared it with the broker\'s own, you may write: pinned_certificate = "{shown}"'
    text = f"the broker's certificate has the SHA-256 fingerprint {shown}; {words}"
    level: Literal["ok", "warn"] = "ok" if probe.answered else "warn"
    return [CheckLine(level=level, subject=name, text=text, data={"fingerprint": shown, "pinned": pin})]


def _lines(probe: Probe, name: str, seconds: float) -> list[CheckLine]:
    """What was found, in words."""
    if not probe.answered:
        return [CheckLine(level="fail", subject=name, text=probe.error)]
    url = probe.broker.url
    lines = [CheckLine(level="ok", subject=name, text=f"connected to {url} with MQTT {probe.config.protocol}")]
    if probe.error:
        lines.append(CheckLine(level="fail", subject=name, text=probe.error))
    lines += [_filter_line(probe, name, each, seconds) for each in probe.filters]
    topics = sorted(probe.topics.items())
    lines += [_topic_line(name, topic, seen, seconds) for topic, seen in topics[:_TOPICS_SHOWN]]
    if len(topics) > _TOPICS_SHOWN:
        rest = f"and {len(topics) - _TOPICS_SHOWN} more topics"
        lines.append(CheckLine(level="ok", subject=name, text=rest))
    if topics:
        lines.append(_rate_line(probe, name, seconds))
    words = {"ignored": "hold a name that starts with _", "unmatched": "do not fit `topic`"}
    for reason, count in probe.skipped.items():
        text = f"{count} messages {words.get(reason, reason)}: they are not read"
        lines.append(
            CheckLine(level="ok" if reason == "ignored" else "warn", subject=name, text=text, data={reason: count})
        )
    lines += _keeping_lines(probe, name)
    return lines


def _filter_line(probe: Probe, name: str, each: str, seconds: float) -> CheckLine:
    plain = plain_filter(each)
    subject = f"{name} {each}"
    if plain in probe.refused:
        text = f"subscription refused: {probe.refused[plain]}; the broker's access rules must allow it"
        return CheckLine(level="fail", subject=subject, text=text)
    count = sum(seen.messages > 0 or seen.time > 0 for topic, seen in probe.topics.items() if _takes(plain, topic))
    if not count:
        text = f"nothing came within {seconds:g} s; is something published there, and may this user read it?"
        return CheckLine(level="warn", subject=subject, text=text)
    shared = " (shared: tried without its group, so as to take nothing from it)" if is_shared(each) else ""
    return CheckLine(level="ok", subject=subject, text=f"{count} topics{shared}", data={"topics": count})


def _takes(plain: str, topic: bytes) -> bool:
    return matches(plain, topic.decode(errors="replace"))


def _topic_line(name: str, topic: bytes, seen: _Topic, seconds: float) -> CheckLine:
    data = {"messages": seen.messages, "readings": seen.readings, "unreadable": seen.errors, "value": seen.value}
    data |= {"time": seen.time, "status": seen.status}
    subject = f"{name} {topic.decode(errors='replace')}"
    if seen.errors:
        text = f"{seen.errors} payloads cannot be read and would be set aside: {seen.error}"
        return CheckLine(level="warn", subject=subject, text=text, data=data)
    status = f" status 0x{seen.status:08X}" if seen.status else ""
    text = f"{seen.value}{status}, {seen.messages / seconds:.3g} messages/s"
    return CheckLine(level="ok", subject=subject, text=text, data=data)


def _rate_line(probe: Probe, name: str, seconds: float) -> CheckLine:
    messages = sum(seen.messages for seen in probe.topics.values()) / seconds
    readings = sum(seen.readings for seen in probe.topics.values()) / seconds
    text = f"{messages:.4g} messages/s, {readings:.4g} readings/s, {len(probe.topics)} topics"
    data = {
        "messages_per_s": messages,
        "readings_per_s": readings,
        "topics": len(probe.topics),
        "heard": sorted(probe.heard),
    }
    return CheckLine(level="ok", subject=name, text=text, data=data)


def _keeping_lines(probe: Probe, name: str) -> list[CheckLine]:
    """What the broker does with messages while the agent is away."""
    if probe.config.session == "clean":
        text = 'session = "clean": what is published while the agent is away is lost'
        return [CheckLine(level="warn", subject=name, text=text)]
    lines = []
    if probe.dropped.isdigit() and int(probe.dropped):
        text = f"the broker has dropped {probe.dropped} messages, of any client, since it started"
        lines.append(CheckLine(level="warn", subject=name, text=text, data={"dropped": int(probe.dropped)}))
    text = (
        "while the agent is away the broker's own queue is the limit, which MQTT cannot tell (mosquitto: "
        "max_queued_messages, 1000 by default)"
    )
    return [*lines, CheckLine(level="ok", subject=name, text=text)]
