"""Reads scenario files, and makes their machines."""

import difflib
import fnmatch
import math
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from simulators.habits import READING_HABITS, SERVER_HABITS, Habit
from simulators.machines import MACHINES, Context, Fault, Machine

_MOST_COPIES = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class ScenarioError(Exception):
    """A scenario cannot be run; the text names the file, the key and what to do."""


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[machine.fault]]` table: one start, at most one end."""

    kind: str
    severity: float = 1.0
    start_part: int | None = None
    start_seconds: float | None = None
    start_fraction: float | None = None
    end_part: int | None = None
    end_seconds: float | None = None
    end_fraction: float | None = None


class HabitPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[habit]]` table: what a protocol does wrong; from the beginning and for ever, unless it says when."""

    kind: str
    machine: str = "*"
    severity: float = 1.0
    start_seconds: float | None = None
    start_fraction: float | None = None
    end_seconds: float | None = None
    end_fraction: float | None = None


class MachinePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[machine]]` table."""

    name: str
    kind: str
    sample_period: float | None = None
    cycle_time: float | None = None
    dialect: str | None = None
    upstream: str | None = None
    copies: int = 1
    fault: tuple[FaultPlan, ...] = ()


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scenario file. Times are seconds.

    Attributes:
        name: the file's name without its ending; not a key of the file.
    """

    title: str
    machine: tuple[MachinePlan, ...]
    name: str = ""
    about: str = ""
    site: str = "drachten"
    area: str = "shavers"
    line: str = "3"
    seed: int = 1
    duration: float = 60.0
    sample_period: float = 0.1
    cycle_time: float = 1.0
    context: Context | None = None
    habit: tuple[HabitPlan, ...] = ()

    def place(self, machine: str) -> str:
        """The ISA-95 path of a machine."""
        return f"{self.site}/{self.area}/{self.line}/{machine}"

    def cycle(self, plan: MachinePlan) -> float:
        """Seconds between two parts of a machine, in whole sample periods."""
        period = self.period(plan)
        return round((plan.cycle_time or self.cycle_time) / period) * period

    def period(self, plan: MachinePlan) -> float:
        """Seconds between two samples of a machine."""
        return plan.sample_period or self.sample_period

    def dialect(self, plan: MachinePlan) -> str:
        """How a machine speaks MQTT; `opcua` if it does not."""
        kind = MACHINES[plan.kind]
        return "opcua" if kind.PROTOCOL == "opcua" else plan.dialect or kind.DIALECTS[0]

    def habits(self) -> tuple[Habit, ...]:
        """The bad habits, in ns since the beginning."""

        def at(habit: HabitPlan, edge: str) -> int | None:
            seconds: float | None = getattr(habit, f"{edge}_seconds")
            share: float | None = getattr(habit, f"{edge}_fraction")
            if share is not None:
                seconds = share * self.duration
            return None if seconds is None else round(seconds * 1e9)

        return tuple(
            Habit(kind=h.kind, machine=h.machine, severity=h.severity, start=at(h, "start") or 0, end=at(h, "end"))
            for h in self.habit
        )


def named() -> list[str]:
    """The names of the scenarios that come with Fieldlab."""
    return sorted(
        f.name.removesuffix(".toml") for f in resources.files(__package__).iterdir() if f.name.endswith(".toml")
    )


def load(name: str, **changes: Any) -> Scenario:
    """A scenario by name, or from a `.toml` file.

    Args:
        name: a name of `named()`, or a path.
        changes: keys of the scenario to replace, such as `seed` or `duration`; None changes nothing.

    Raises:
        ScenarioError: if there is no such scenario, or it makes no sense.
    """
    path = Path(name)
    if name in named():
        text = resources.files(__package__).joinpath(f"{name}.toml").read_text("utf-8")
    elif path.suffix == ".toml":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ScenarioError(f"{name}: cannot be read: {e}") from None
    else:
        near = difflib.get_close_matches(name, named(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(named())}, or give a .toml file"
        raise ScenarioError(f"no scenario `{name}`; {hint}")
    scenario = _parse(text, name)
    scenario = msgspec.structs.replace(scenario, machine=_copied(scenario.machine))
    scenario = msgspec.structs.replace(scenario, name=path.stem, **{k: v for k, v in changes.items() if v is not None})
    _check(scenario, name)
    return scenario


def machines(scenario: Scenario, start: int) -> list[Machine]:
    """The machines of a scenario; production starts at `start`, ns, cut to whole microseconds.

    Raises:
        ScenarioError: if a fault does not fit its machine.
    """
    made: list[Machine] = []
    late: dict[str, int] = {}  # how much later than the first machine of its line each one starts, ns
    for i, plan in enumerate(scenario.machine):
        cycle = scenario.cycle(plan)
        faults = [
            _fault(scenario, plan, f, f"{scenario.name}: machine[{i}].fault[{j}]") for j, f in enumerate(plan.fault)
        ]
        late[plan.name] = late[plan.upstream] + round(cycle * 1e6) * 1000 if plan.upstream else 0
        try:
            made.append(
                MACHINES[plan.kind](
                    plan.name,
                    seed=scenario.seed,
                    start=start - start % 1000 + late[plan.name],
                    sample_period=round(scenario.period(plan) * 1e6) * 1000,
                    cycle=round(cycle * 1e6) * 1000,
                    faults=faults,
                    parts=_parts(scenario, plan),
                    context=scenario.context,
                )
            )
            if plan.upstream:
                made[-1].follow(next(m for m in made if m.name == plan.upstream))
        except ValueError as e:
            raise ScenarioError(f"{scenario.name}: machine[{i}]: {e}") from None
    return made


def _copied(plans: tuple[MachinePlan, ...]) -> tuple[MachinePlan, ...]:
    """Each machine with `copies` as so many machines, `name-1` and up."""
    made: list[MachinePlan] = []
    for plan in plans:
        if not 1 < plan.copies <= _MOST_COPIES:  # refused later, if it makes no sense
            made.append(plan)
            continue
        made += [msgspec.structs.replace(plan, name=f"{plan.name}-{i}", copies=1) for i in range(1, plan.copies + 1)]
    return tuple(made)


def _parts(scenario: Scenario, plan: MachinePlan) -> int:
    return int(scenario.duration / scenario.cycle(plan) + 1e-9)


def _fault(scenario: Scenario, plan: MachinePlan, fault: FaultPlan, where: str) -> Fault:
    def part(edge: str) -> int | None:
        given = {k: getattr(fault, f"{edge}_{k}") for k in ("part", "seconds", "fraction")}
        chosen = {k: v for k, v in given.items() if v is not None}
        if len(chosen) > 1:
            raise ScenarioError(f"{where}: give one of {edge}_part, {edge}_seconds and {edge}_fraction")
        for key, value in chosen.items():
            if key == "part":
                return int(value)
            seconds = float(value) if key == "seconds" else float(value) * scenario.duration
            return math.ceil(seconds / scenario.cycle(plan) - 1e-9) + 1
        return None

    start = part("start")
    if start is None:
        raise ScenarioError(f"{where}: needs start_part, start_seconds or start_fraction")
    return Fault(kind=fault.kind, start_part=start, end_part=part("end"), severity=fault.severity)


def _parse(text: str, name: str) -> Scenario:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ScenarioError(f"{name}: is not TOML: {e}") from None
    if "name" in table:
        raise ScenarioError(f"{name}: name: unknown key; a scenario's name is the name of its file")
    try:
        return msgspec.convert(table, Scenario)
    except msgspec.ValidationError as e:
        message, _, at = str(e).partition(" - at `$")
        key = re.sub(r"^\.", "", at.rstrip("`"))
        unknown = re.search(r"unknown field `(.*)`", message)
        if unknown:
            near = difflib.get_close_matches(unknown[1], _keys(key), n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(_keys(key))}"
            message = f"unknown key `{unknown[1]}`; {hint}"
        raise ScenarioError(f"{name}: {f'{key}: ' if key else ''}{message}") from None


def _keys(at: str) -> list[str]:
    kinds: dict[str, type[msgspec.Struct]] = {"machine[": MachinePlan, "habit[": HabitPlan, "context": Context}
    kind = FaultPlan if ".fault[" in at else next((k for start, k in kinds.items() if at.startswith(start)), Scenario)
    return sorted(set(kind.__struct_fields__) - ({"name"} if kind is Scenario else set()))


def _check(scenario: Scenario, name: str) -> None:
    if not scenario.machine:
        raise ScenarioError(f"{name}: needs at least one [[machine]]")
    for key in ("duration", "sample_period", "cycle_time"):
        if not (math.isfinite(getattr(scenario, key)) and getattr(scenario, key) > 0):
            raise ScenarioError(f"{name}: {key}: must be above 0")
    if scenario.seed < 0:
        raise ScenarioError(f"{name}: seed: must not be negative")
    for key in ("site", "area", "line"):
        if not _NAME.fullmatch(getattr(scenario, key)):
            raise ScenarioError(f"{name}: {key}: may hold letters, digits, `-` and `_`")
    seen: set[str] = set()
    for i, plan in enumerate(scenario.machine):
        _check_machine(scenario, plan, f"{name}: machine[{i}]", seen)
        if plan.name in seen:
            raise ScenarioError(f"{name}: machine[{i}].name: there are two machines `{plan.name}`")
        seen.add(plan.name)
    _check_habits(scenario, name)
    if scenario.context and (
        scenario.context.lot_parts < 1 or scenario.context.shift <= 0 or not scenario.context.people
    ):
        raise ScenarioError(f"{name}: context: needs lot_parts of 1 or more, a shift above 0, and somebody in people")
    machines(scenario, 0)


def _check_habits(scenario: Scenario, name: str) -> None:
    known = [*READING_HABITS, *SERVER_HABITS]
    for i, habit in enumerate(scenario.habit):
        where = f"{name}: habit[{i}]"
        if habit.kind not in known:
            near = difflib.get_close_matches(habit.kind, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise ScenarioError(f"{where}.kind: no habit `{habit.kind}`; {hint}")
        if not any(fnmatch.fnmatchcase(plan.name, habit.machine) for plan in scenario.machine):
            raise ScenarioError(f"{where}.machine: no machine fits `{habit.machine}`")
        if not habit.severity > 0:
            raise ScenarioError(f"{where}.severity: must be above 0")
        for edge in ("start", "end"):
            if getattr(habit, f"{edge}_seconds") is not None and getattr(habit, f"{edge}_fraction") is not None:
                raise ScenarioError(f"{where}: give one of {edge}_seconds and {edge}_fraction")


def _check_machine(scenario: Scenario, plan: MachinePlan, where: str, before: set[str]) -> None:
    if plan.kind not in MACHINES:
        raise ScenarioError(f"{where}.kind: no machine `{plan.kind}`; there are {', '.join(MACHINES)}")
    if plan.dialect is not None and plan.dialect not in MACHINES[plan.kind].DIALECTS:
        raise ScenarioError(f"{where}.dialect: a {plan.kind} speaks {', '.join(MACHINES[plan.kind].DIALECTS)}")
    if plan.dialect is not None and MACHINES[plan.kind].PROTOCOL == "opcua":
        raise ScenarioError(f"{where}.dialect: a {plan.kind} speaks OPC UA, which has no dialects")
    if plan.upstream is not None and plan.upstream not in before:
        raise ScenarioError(f"{where}.upstream: there is no machine `{plan.upstream}` above it")
    if not 1 <= plan.copies <= _MOST_COPIES:
        raise ScenarioError(f"{where}.copies: must be 1 to {_MOST_COPIES}")
    if not _NAME.fullmatch(plan.name):
        raise ScenarioError(f"{where}.name: may hold letters, digits, `-` and `_`")
    for key in ("sample_period", "cycle_time"):
        value = getattr(plan, key)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ScenarioError(f"{where}.{key}: must be above 0")
    if round(scenario.period(plan) * 1e6) < 1:
        raise ScenarioError(f"{where}.sample_period: must be at least a microsecond")
