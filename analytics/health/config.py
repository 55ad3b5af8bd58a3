"""The table `[health]`, and what `[[signal]]` says of a sensor."""

import difflib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec

CHECKS = ("stuck", "flat", "saturated", "quantised", "spiking", "silent", "drifting")
STANDING = (
    "idle", "stopped", "off", "offline", "standby", "paused", "ready", "operational", "finished", "complete", "waiting",
    "down", "error", "fault", "setup", "maintenance",
)  # fmt: skip


class SensorRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a `[[signal]]` says of its sensors' health. Of several that fit, later keys overrule earlier ones.

    Attributes:
        match: glob over machine/signal.
        health: the checks to make, of `CHECKS`; empty for none; None: not said, all.
        range: lowest and highest value that the sensor can give; a reading at an end says nothing.
        stuck: equal readings in a row that are no chance; 0: learned.
        silent: how long without a reading is too long, such as `10s`; empty: learned, where readings come regularly.
        step: largest change from one reading to the next that the quantity can make; None: learned.
        twin: another sensor of the same quantity, `machine/signal`.
        twin_tolerance: how far the mean difference to the twin may move from the learned one; None: learned.
    """

    match: str
    health: tuple[str, ...] | None = None
    range: tuple[float, float] | None = None
    stuck: int = 0
    silent: str = ""
    step: float | None = None
    twin: str = ""
    twin_tolerance: float | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The keys that are given."""
        keys = self.__struct_fields__[1:]
        return {k: value for k in keys if (value := getattr(self, k)) not in (None, 0, "")}


class HealthKeys(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[health]`: checks of sensors. They are made on every number that a chart or a part is judged by.

    Attributes:
        on: whether sensors are checked.
        signals: globs over machine/signal: others to check as well.
        learn: readings to learn a signal's usual behaviour from.
        standing: texts of a machine's signal `state` while it stands: sensors that rest then are not sick.
    """

    on: bool = True
    signals: tuple[str, ...] = ()
    learn: int = 300
    standing: tuple[str, ...] = STANDING


class HealthConfig(HealthKeys, frozen=True, kw_only=True, omit_defaults=True):
    """All that checks of sensors are told.

    Attributes:
        rules: what each `[[signal]]` says of sensors, in their order.
    """

    rules: tuple[SensorRule, ...] = ()

    def names(self, short: str) -> bool:
        """Whether `machine/signal` is to be checked though nothing is judged by it."""
        return any(fnmatchcase(short, p) for p in (*self.signals, *(r.match for r in self.rules if r.said)))

    def sensor(self, short: str) -> SensorRule:
        """All that is said of the sensor `machine/signal`."""
        said: dict[str, Any] = {}
        for rule in self.rules:
            if fnmatchcase(short, rule.match):
                said |= rule.said
        return SensorRule(match=short, **said)


def errors(config: HealthConfig, span_ns: Callable[[str], int]) -> Iterator[tuple[str, str]]:
    """What is wrong that types cannot say: (dotted key, what and what to do)."""
    if config.learn < 100:
        yield "health.learn", f"{config.learn} readings say too little; give at least 100, better 300"
    yield from ((f"health.signals[{i}]", _PATH.format(s)) for i, s in enumerate(config.signals) if s.count("/") != 1)
    for i, rule in enumerate(config.rules):
        yield from ((f"signal[{i}].{key}", words) for key, words in _rule_errors(rule, span_ns))


def _rule_errors(rule: SensorRule, span_ns: Callable[[str], int]) -> Iterator[tuple[str, str]]:
    for check in rule.health or ():
        if check not in CHECKS:
            near = difflib.get_close_matches(check, CHECKS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield "health", f"{check!r} is no check of a sensor{hint} There are {', '.join(CHECKS)}"
    if rule.range is not None and not rule.range[0] < rule.range[1]:
        yield "range", "give the lowest and the highest value of the sensor, such as [0, 120]"
    if rule.stuck < 0 or rule.stuck == 1:
        yield "stuck", "give 2 or more equal readings in a row"
    if rule.twin and rule.twin.count("/") != 1:
        yield "twin", _PATH.format(rule.twin)
    for key in ("step", "twin_tolerance"):
        value = getattr(rule, key)
        if value is not None and not value > 0:
            yield key, "must be above 0"
    if rule.silent:
        try:
            span_ns(rule.silent)
        except ValueError as e:
            yield "silent", str(e)


_PATH = "{!r} must be machine/signal"
