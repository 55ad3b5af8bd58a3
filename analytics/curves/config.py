"""The table `[[curve]]`, and its `[[curve.rule]]`."""

from collections.abc import Iterator
from typing import Literal

import msgspec

TIME = "time"  # as `x`: seconds since the part, or the phase, began
RULES = ("ramp", "dwell", "lag", "highest", "lowest", "value")
NEEDS_BAND = ("ramp", "dwell")
PER = {"s": 1.0, "min": 60.0, "h": 3600.0}
MIN_BASELINE = 10


class CurveRule(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[curve.rule]]`: a figure of the curve, and its bounds.

    Attributes:
        kind: `ramp`: mean slope from one end of `band` to the other, by its first crossings. `dwell`: longest unbroken
            stay of y within `band`, in units of x. `lag`: largest distance of the signal `other` from y. `highest`,
            `lowest`: of y. `value`: y where x is `at`.
        name: what reasons and features call it; empty: its kind.
        phase: only readings in this phase of the cycle.
        band: from and to, in the unit of y; a ramp from 120 to 60 cools.
        range: from and to, in the unit of x: only readings there.
        at: for `value`, where, in the unit of x.
        other: for `lag`, the other signal of the machine.
        per: for a `ramp` or `dwell` over time: the unit of time, `s`, `min` or `h`.
        min: lower bound; absent: none.
        max: upper bound; absent: none.
        verdict: of a part beyond them.
    """

    kind: str
    name: str = ""
    phase: str = ""
    band: tuple[float, float] | None = None
    range: tuple[float, float] | None = None
    at: float | None = None
    other: str = ""
    per: Literal["s", "min", "h"] = "s"
    min: float | None = None
    max: float | None = None
    verdict: Literal["suspect", "fail"] = "fail"

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.kind


class CurveConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[curve]]`: one curve a part.

    Attributes:
        name: unique, also among charts; the tag `chart` of its findings and points.
        machine: globs allowed; it has a `[[part]]`.
        y: the signal that is judged.
        x: the signal that it stands against, of which the first sweep upwards counts; or `time`.
        phase: only readings in this phase of the part's cycle.
        range: of x, that the envelope spans; absent: what nine in ten curves of the baseline reach.
        points: of the common grid.
        baseline: curves to learn the envelope from; 0 for rules alone.
        false_alarm_rate: designed false alarms a curve.
        rule: further demands, by figures of the curve.
    """

    name: str
    machine: str
    y: str
    x: str = TIME
    phase: str = ""
    range: tuple[float, float] | None = None
    points: int = 50
    baseline: int = 30
    false_alarm_rate: float = 1 / 370.4
    rule: tuple[CurveRule, ...] = ()

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of the signals that it takes."""
        return (self.y, *(() if self.x == TIME else (self.x,)), *(r.other for r in self.rule if r.other))

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases whose readings are kept apart."""
        return tuple(dict.fromkeys(r.phase for r in self.rule if r.phase))


def errors(curve: CurveConfig) -> Iterator[tuple[str, str]]:
    """What is wrong that types cannot say: (key, what and what to do)."""
    if not curve.name:
        yield "name", "give it a name: findings and limits are called by it"
    if curve.y in (curve.x, TIME):
        yield "y", "is the signal that is judged; x is what it stands against"
    if curve.baseline and curve.baseline < MIN_BASELINE:
        yield "baseline", f"{curve.baseline} curves say too little; give at least {MIN_BASELINE}, or 0 for rules alone"
    if not curve.baseline and not curve.rule:
        yield "baseline", "0 judges nothing without a [[curve.rule]]"
    if not 10 <= curve.points <= 1_000:
        yield "points", "must be 10 to 1000"
    if not 0 < curve.false_alarm_rate < 0.5:
        yield "false_alarm_rate", "must be above 0 and below 0.5 a curve"
    if curve.range is not None and not curve.range[0] < curve.range[1]:
        yield "range", "must be from below to above"
    labels = [rule.label for rule in curve.rule]
    for i, rule in enumerate(curve.rule):
        if labels.index(rule.label) != i:
            yield f"rule[{i}].name", f"two rules are called {rule.label!r}; give each its own name"
        for key, words in _rule_errors(rule):
            yield f"rule[{i}].{key}", words


def _rule_errors(rule: CurveRule) -> Iterator[tuple[str, str]]:
    if rule.kind not in RULES:
        yield "kind", f"{rule.kind!r} is no kind of rule; there are {', '.join(RULES)}"
    if rule.min is None and rule.max is None:
        yield "min", "give min, max, or both"
    elif rule.min is not None and rule.max is not None and rule.min > rule.max:
        yield "min", "is above max"
    if (rule.kind in NEEDS_BAND) != (rule.band is not None):
        yield "band", f"{', '.join(NEEDS_BAND)} need it, and no other kind has one"
    elif rule.band is not None and (
        rule.band[0] == rule.band[1] or (rule.kind == "dwell" and rule.band[0] > rule.band[1])
    ):
        yield "band", "must be from one value to another; of a dwell, from below to above"
    if (rule.kind == "value") != (rule.at is not None):
        yield "at", "belongs to a `value`, which needs it"
    if (rule.kind == "lag") != bool(rule.other):
        yield "other", "belongs to a `lag`, which needs it"
