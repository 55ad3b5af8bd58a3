"""The `[[action]]` table, and its errors."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import msgspec

from edge.actions.command import CallMethod, Command, Value, WriteNode
from edge.actions.limiter import Limit
from fieldlab.config import Duration
from fieldlab.errors import ConfigError
from fieldlab.model import FindingState, Severity

LONGEST_AGE: Final = 3600.0  # seconds
LONGEST_TEXT: Final = 200  # characters of a text that is written
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS: Final = {
    "finding": ("finding.id", "part", "machine", "signal", "chart", "rule", "severity"),
    "verdict": ("part", "machine", "verdict"),
}


class ActionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An `[[action]]`: what to do on a machine when a chart or a verdict says something.

    Attributes:
        name: unique; the tag `action`.
        on: what triggers it.
        source: which OPC UA source: its machine's name, or its index among the `[[source]]`, from 0.
        write: a node and its value; or
        call: a method and its arguments.
        machine: glob over machines.
        signal: glob over the finding's signal; `_all` is that of a multivariate chart.
        chart: glob over the finding's chart.
        rule: glob over the finding's rule.
        severity: of the finding; absent: any.
        state: of the finding: `raised` or `cleared`.
        verdict: of the part: `fail` or `suspect`.
        dry_run: look and log, but change nothing. `false` must be written.
        limit: at most so many in a sliding window, such as `6/h`; beyond it a trigger does nothing.
        max_age: a trigger older than that does nothing, for whatever reason it comes late.
        allow_insecure: whether it may be sent on a session without signatures.
    """

    name: str
    on: Literal["finding", "verdict"]
    source: str | int
    write: WriteNode | None = None
    call: CallMethod | None = None
    machine: str = "*"
    signal: str = "*"
    chart: str = "*"
    rule: str = "*"
    severity: Severity | None = None
    state: Literal["raised", "cleared"] = "raised"
    verdict: Literal["fail", "suspect"] = "fail"
    dry_run: bool = True
    limit: str = "6/h"
    max_age: Duration = Duration(30)
    allow_insecure: bool = False

    @property
    def what(self) -> WriteNode | CallMethod:
        """What to do, with placeholders as they are written."""
        found = self.write or self.call
        assert found is not None, "checked by `validate`"
        return found

    def fits_finding(self, machine: str, signal: str, chart: str, rule: str) -> bool:
        """Whether the globs fit."""
        pairs = ((machine, self.machine), (signal, self.signal), (chart, self.chart), (rule, self.rule))
        return all(fnmatchcase(word, glob) for word, glob in pairs)

    def fits_machine(self, machine: str) -> bool:
        """Whether the machine's glob fits."""
        return fnmatchcase(machine, self.machine)

    def wants(self, state: FindingState, severity: Severity) -> bool:
        """Whether a finding's state and severity fit."""
        return state == self.state and self.severity in (None, severity)


_OF_FINDINGS: Final = ("signal", "chart", "rule", "severity", "state")


class BoundAction(msgspec.Struct, frozen=True, kw_only=True):
    """An action, and the index of the source that it uses."""

    config: ActionConfig
    source: int


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an action needs to know of a `[[source]]`.

    Attributes:
        machines: the machines that it reads.
        commandable: whether its kind can do commands.
        secure: whether its configuration asks for a session with signed messages.
    """

    machines: frozenset[str]
    commandable: bool
    secure: bool


def validate(actions: tuple[ActionConfig, ...], tables: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, str]]:
    """(key, message) of everything wrong that can be said without the sources; `tables` as they were written."""
    seen: set[str] = set()
    for i, (action, table) in enumerate(zip(actions, tables, strict=True)):
        key = f"action[{i}]"
        if not re.fullmatch(r"[\w.-]{1,100}", action.name):
            yield f"{key}.name", "must have 1 to 100 letters, digits, - _ and ."
        if action.name in seen:
            yield f"{key}.name", f"there is another [[action]] {action.name!r}"
        seen.add(action.name)
        if (action.write is None) == (action.call is None):
            yield key, "needs exactly one of `write` and `call`"
            continue
        yield from _misplaced(action, table, key)
        try:
            Limit.parse(action.limit)
        except ValueError as e:
            yield f"{key}.limit", str(e)
        if not 0 < action.max_age <= LONGEST_AGE:
            yield f"{key}.max_age", "must be more than 0s and at most 1h: an old trigger says nothing about now"
        yield from _wrong_texts(action, key)


def _misplaced(action: ActionConfig, table: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    wrong = ("verdict",) if action.on == "finding" else _OF_FINDINGS
    for name in wrong:
        if name in table:
            yield f"{key}.{name}", f'means nothing with on = "{action.on}"'


def _wrong_texts(action: ActionConfig, key: str) -> Iterator[tuple[str, str]]:
    at = f"{key}.write" if action.write is not None else f"{key}.call"
    known = PLACEHOLDERS[action.on]
    for text in _texts(action.what):
        if len(text) > LONGEST_TEXT:
            yield at, f"a text has at most {LONGEST_TEXT} characters"
        for word in _PLACEHOLDER.findall(text):
            if word not in known:
                yield at, f"unknown placeholder {{{word}}}; known with on = {action.on!r}: {', '.join(known)}"
    addresses = (
        (action.write.node,)
        if action.write is not None
        else (action.call.object, action.call.method)
        if action.call
        else ()
    )
    for address in addresses:
        if _PLACEHOLDER.search(address):
            yield at, f"{address!r} may hold no placeholder: what is acted upon is fixed by this file alone"


def _texts(what: WriteNode | CallMethod) -> Iterator[str]:
    values: tuple[Value, ...] = (what.value,) if isinstance(what, WriteNode) else what.arguments
    for value in values:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                yield one


def choose_source(action: ActionConfig, key: str, sources: tuple[SourceFacts, ...]) -> int:
    """The index of the source that an action uses.

    Raises:
        ConfigError: if there is none, or more than one, or it cannot do commands, or its session is not signed.
    """
    if isinstance(action.source, int):
        found = [action.source] if 0 <= action.source < len(sources) else []
    else:
        found = [i for i, s in enumerate(sources) if action.source in s.machines]
    able = [i for i in found if sources[i].commandable]
    if not able:
        what = "can only be read" if found else "does not exist"
        machines = sorted({m for s in sources if s.commandable for m in s.machines})
        hint = f"; OPC UA sources here: {', '.join(machines)}" if machines else "; there is no OPC UA source here"
        raise ConfigError(f"source {action.source!r} {what}{hint}", key=f"{key}.source")
    if len(able) > 1:
        indices = ", ".join(map(str, able))
        raise ConfigError(
            f"{action.source!r} is a machine of the sources {indices}: write one of these", key=f"{key}.source"
        )
    if not sources[able[0]].secure and not action.allow_insecure:
        raise ConfigError(
            'its source has security = "none": anybody on the network could act in our name. Switch security on, or '
            "write allow_insecure = true",
            key=f"{key}.source",
        )
    return able[0]


def command_of(action: ActionConfig, words: dict[str, str], until: int) -> Command:
    """The command of a trigger; `words` fill the placeholders of texts."""
    fill = _filler(words)
    what: WriteNode | CallMethod
    if action.write is not None:
        what = msgspec.structs.replace(action.write, value=fill(action.write.value))
    else:
        assert action.call is not None
        what = msgspec.structs.replace(action.call, arguments=tuple(fill(a) for a in action.call.arguments))
    return Command(what=what, until=until, signed=not action.allow_insecure, dry=action.dry_run)


def _filler(words: dict[str, str]) -> Callable[[Value], Value]:
    def one(value: bool | float | str) -> bool | int | float | str:
        if not isinstance(value, str):
            return value
        text = _PLACEHOLDER.sub(lambda m: words.get(m[1], ""), value)
        return "".join(c for c in text if c.isprintable())[:LONGEST_TEXT]

    def fill(value: Value) -> Value:
        return tuple(one(v) for v in value) if isinstance(value, tuple) else one(value)

    return fill
