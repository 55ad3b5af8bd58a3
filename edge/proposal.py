"""What `fieldlab discover` found, and the configuration that it proposes for it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fieldlab.model import SignalKind

_PART_IDS: Final = (
    "partid", "partserialnumber", "serialnumber", "workpieceid", "workpieceserialnumber", "productserialnumber",
    "productid", "uniquepartid", "dmc", "barcode", "itemid", "traceid", "part", "workpiece",
)  # fmt: skip
_COUNTERS: Final = (
    "partcount", "partcounter", "partscount", "partsproduced", "partsproducedinlifetime", "partscompleted",
    "partsmade", "producedparts", "workpiececount", "productcount", "piececount",
)  # fmt: skip
_JOBS: Final = (
    "joborder", "joborderid", "joborderidentifier", "jobid", "job", "orderid", "ordernumber", "workorder",
    "workorderid", "productionorder", "batchid",
)  # fmt: skip
_RIDERS: Final = ("tool", "material", "lot", "batch", "program", "recipe", "shift", "job", "order")
_MOST_RIDERS: Final = 8
# What people set, and what does not move: no quantity to watch.
_SET: Final = re.compile(
    r"set_?point|setvalue|command|commanded|target|nominal|limit|override|max|min|threshold|config|lifetime|total"
    r"|duration|version|interval",
    re.IGNORECASE,
)
_CHARTED: Final = 50  # signals in a proposed chart
_MANY: Final = 100  # values to learn limits from
_FEW: Final = 30  # of prints and orders, which take hours
_ARL0: Final = 370  # charted values to a false alarm of one signal
_LONGEST_NAME: Final = 120
_TOPICS_SHOWN: Final = 100


class ProposedSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that can be read.

    Attributes:
        name: its name on the machine.
        kind: gauge, counter, state or text.
        unit: as printed.
        lsl: lower specification limit.
        usl: upper specification limit.
        states: number → text.
        address: keys that only its source knows, such as `node`.
        measured: whether it looks like a measurement, worth a chart.
        text: whether its values are text.
        value: its value at the time, as text.
        notes: comments, a line each.
        described: whether its source tells unit, kind and states itself, so that no rule needs to.
    """

    name: str
    kind: SignalKind = "gauge"
    unit: str = ""
    lsl: float | None = None
    usl: float | None = None
    states: dict[str, str] = {}
    address: dict[str, str] = {}
    measured: bool = False
    text: bool = False
    value: str = ""
    notes: tuple[str, ...] = ()
    described: bool = False


class ProposedTopic(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard on a topic.

    Attributes:
        topic: the topic.
        format: the dialect that it speaks; empty if it is not read.
        messages: published while we listened.
        retained: sent because we subscribed; they are no rate.
        rate: messages a second.
        types: of its values.
        not_read: why it is not read.
    """

    topic: str
    format: str = ""
    messages: int = 0
    retained: int = 0
    rate: float = 0.0
    types: tuple[str, ...] = ()
    not_read: str = ""


class ProposedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and its signals.

    Attributes:
        name: its name.
        why: how it was recognised.
        place: site, area and line, where its address tells them.
        signals: what can be read.
        left_out: what cannot be read, or is not worth it, with the reason.
        part: keys of its `[[part]]` but `machine`, where its source knows what a part is; empty: guessed from names.
    """

    name: str
    why: str
    place: tuple[str, str, str] | None = None
    signals: tuple[ProposedSignal, ...] = ()
    left_out: tuple[str, ...] = ()
    part: dict[str, Any] = {}


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A whole discovery.

    Attributes:
        url: where.
        sources: keys of each `[[source]]` table; the last one takes the `[[source.signal]]`s.
        machines: what was found.
        notes: comments on the whole, a line each.
        rules: whether signals are described by `[[signal]]` rules; else each is a `[[source.signal]]`.
        events: keys of each `[[source.events]]` table of the last source.
        topics: what was heard, topic by topic.
    """

    url: str
    sources: tuple[dict[str, Any], ...]
    machines: tuple[ProposedMachine, ...] = ()
    notes: tuple[str, ...] = ()
    rules: bool = False
    events: tuple[dict[str, Any], ...] = ()
    topics: tuple[ProposedTopic, ...] = ()


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What a discovery cannot know: the agent's name, its data folder and the place."""

    name: str = "edge-1"
    data: str = "var/edge-1"
    site: str = "site"
    area: str = "area"
    line: str = "line"


def clean_name(text: str) -> str:
    """`text` as a name of a machine or signal that no path, topic or glob takes for something else."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in text.strip())
    return (re.sub(r"_{2,}", "_", kept).strip("._") or "unnamed")[:_LONGEST_NAME]


def unique_names(wanted: Sequence[str]) -> list[str]:
    """`wanted`, the second and later of one name numbered."""
    seen: set[str] = set()
    found = []
    for name in wanted:
        chosen, number = name, 2
        while chosen in seen:
            chosen, number = f"{name}_{number}", number + 1
        seen.add(chosen)
        found.append(chosen)
    return found


def is_measured(name: str) -> bool:
    """Whether a number of this name is likely a measurement, and not set by people."""
    return _SET.search(name.rpartition(".")[2]) is None


def part_of(machine: ProposedMachine) -> tuple[dict[str, Any], str] | None:
    """The keys of a `[[part]]` table but `machine`, and why; None if no signal tells parts apart."""
    if machine.part:
        return machine.part, f"{machine.name} {machine.why}, which tells where a part begins and ends"
    for key, words in (("id", _PART_IDS), ("counter", _COUNTERS), ("job", _JOBS)):
        found = [s for word in words for s in machine.signals if _last(s.name) == word and (s.text or key != "job")]
        if not found:
            continue
        chosen = found[0]
        riders = [
            s.name
            for s in machine.signals
            if s.text and s.kind == "text" and s.name != chosen.name and any(w in _last(s.name) for w in _RIDERS)
        ]
        table: dict[str, Any] = {key: chosen.name}
        if riders:
            table["genealogy"] = riders[:_MOST_RIDERS]
        return table, f"guessed from the name {chosen.name!r}: check that it changes with every part"
    return None


def _last(name: str) -> str:
    """The last level of a name, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())


def to_toml(proposal: Proposal, frame: Frame) -> str:
    """A configuration file that runs as it is."""
    out = [f"# Made by fieldlab discover {_one_line(proposal.url)}"]
    out += [f"# {_one_line(note)}" for note in proposal.notes]
    out += _topics(proposal.topics)
    out += ["", "[agent]", _pair("name", frame.name), _pair("data", frame.data)]
    out += ["", "[place]", *(_pair(level, getattr(frame, level)) for level in ("site", "area", "line"))]
    for source in proposal.sources:
        out += ["", "[[source]]", *(_pair(key, value) for key, value in source.items())]
    for machine in proposal.machines:
        out += ["", f"# --- {machine.name}: {_one_line(machine.why)}; {len(machine.signals)} signals"]
        out += [f"# not read: {_one_line(text)}" for text in machine.left_out]
        for signal in machine.signals:
            out += _signal(machine, signal, rules=proposal.rules)
    for events in proposal.events:
        out += ["", "# Alarms and events that the server reports", "[[source.events]]"]
        out += [_pair(key, value) for key, value in events.items()]
    for machine in proposal.machines:
        out += _judgement(machine)
    return "\n".join(out) + "\n"


def _topics(topics: Sequence[ProposedTopic]) -> list[str]:
    """Comments: what is read from each topic, the busiest first."""
    read = sorted((each for each in topics if each.format), key=lambda each: -each.rate)
    out = []
    for each in read[:_TOPICS_SHOWN]:
        rate = f"{each.rate:.3g}/s" if each.messages else "retained"
        out.append(f"#   {_one_line(each.topic)}: {rate}, {each.format}, {' and '.join(each.types) or 'no value'}")
    if len(read) > _TOPICS_SHOWN:
        out.append(f"#   and {len(read) - _TOPICS_SHOWN} topics more: --json shows all")
    return ["#", "# Topics, messages a second, dialect and types:", *out] if out else []


def _signal(machine: ProposedMachine, signal: ProposedSignal, *, rules: bool) -> list[str]:
    pairs: list[tuple[str, Any]] = [("unit", signal.unit)] if signal.unit else []
    if signal.kind != "gauge":
        pairs.append(("kind", signal.kind))
    pairs += [(key, getattr(signal, key)) for key in ("lsl", "usl") if getattr(signal, key) is not None]
    if signal.states:
        pairs.append(("map", signal.states))
    if rules and signal.described:
        words = [signal.unit, "" if signal.kind == "gauge" else signal.kind, f"now {signal.value}"]
        return [f"#   {_one_line(signal.name)}: {_one_line(', '.join(word for word in words if word))}"]
    if rules and not pairs:
        return []
    head = ["", *(f"# {_one_line(note)}" for note in signal.notes)]
    if rules:
        return [
            *head,
            "[[signal]]",
            _pair("match", _glob(f"{machine.name}/{signal.name}")),
            *(_pair(k, v) for k, v in pairs),
        ]
    table = [("machine", machine.name), ("name", signal.name), *signal.address.items(), *pairs]
    return [*head, "[[source.signal]]", *(_pair(k, v) for k, v in table)]


def _judgement(machine: ProposedMachine) -> list[str]:
    """`[[part]]` and `[[chart]]` of a machine, where something speaks for them."""
    out: list[str] = []
    part = part_of(machine)
    if part is not None:
        table, why = part
        out += ["", f"# {_one_line(why)}", "[[part]]", _pair("machine", _glob(machine.name))]
        out += [_pair(key, value) for key, value in table.items()]
    measured = [_glob(f"{machine.name}/{s.name}") for s in machine.signals if s.measured]
    if measured:
        charted = measured[:_CHARTED]
        span = "part" if part is not None else "10s"
        first = _FEW if machine.part else _MANY
        name = _one_line(machine.name)
        out += ["", f"# What {name} measures, a value each {span}; limits are learned from the first {first}."]
        if len(measured) > len(charted):
            more = _one_line(", ".join(measured[_CHARTED:][:20]))
            out.append(f"# {len(measured) - len(charted)} more look measured: {more}")
        out += ["[[chart]]", _pair("name", f"{machine.name} measured"), _pair("kind", "individuals")]
        out += [_pair("signals", charted), _pair("per", span), _pair("baseline", first)]
        out.append(f"arl0 = {_ARL0 * len(charted)}  # of each signal: all {len(charted)} together give one in {_ARL0}")
    return out


def _glob(text: str) -> str:
    """A glob that matches `text` alone."""
    return re.sub(r"([*?[])", r"[\1]", text)


def _pair(key: str, value: Any) -> str:
    return f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    # A JSON text is a TOML basic string, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """`text` for a comment."""
    return "".join(c if c.isprintable() else " " for c in text)
