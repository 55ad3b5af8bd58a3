"""The verdict of a part: fail, suspect or pass, with ranked reasons in words.

Fail: a characteristic with specification limits is outside them. It is the charted feature, where a chart with one
value a part names the signal (mean, last, min or max); else any Good reading counts. Suspect: a chart alarmed on this
part's own value, an alarm was open on the machine while the part was made, a charted characteristic was missing, Bad or
Uncertain, or the part's start was not seen. Else pass. Where the uncertainty of measurement is known, limits have a
guard band (`analytics.guardband`): within it nothing is proven, and the part is suspect.

The score ranks parts: 1 for fail, 0.5 to 0.9 for suspect (0.1 more a reason), and for pass 0.4 times how far the worst
characteristic is from the middle of its specification to the limit.
"""

from collections.abc import Sequence

import msgspec

from analytics.guardband import zone
from fieldlab.model import SignalInfo, VerdictKind


class Characteristic(msgspec.Struct, frozen=True):
    """What is known of one signal over a part.

    Attributes:
        info: unit and specification limits.
        charted: whether a chart with one value a part names it: it must be there then.
        good: Good readings.
        other: Bad and Uncertain readings.
        values: name → value to compare with the specification: features, or extremes of the readings.
    """

    info: SignalInfo
    charted: bool
    good: int
    other: int
    values: dict[str, float]


class Against(msgspec.Struct, frozen=True):
    """What speaks against a part for good: the characteristic's signal, how far beyond its limit, and words."""

    signal: str
    beyond: float
    words: str


class Opinion(msgspec.Struct, frozen=True):
    """A verdict without its time and place.

    Attributes:
        verdict: pass, suspect or fail.
        score: see above.
        reasons: in words, most important first.
        against: what fails it.
        doubts: what makes it suspect, in words.
        closeness: 0 (all characteristics in the middle) to 1 (one is at its limit).
    """

    verdict: VerdictKind
    score: float
    reasons: tuple[str, ...]
    against: tuple[Against, ...] = ()
    doubts: tuple[str, ...] = ()
    closeness: float = 0.0


def judge(
    characteristics: list[Characteristic], alarms: list[str], *, complete: bool, against: Sequence[Against] = ()
) -> Opinion:
    """Judge a part.

    Args:
        characteristics: the signals with specification limits or charts with one value a part.
        alarms: in words, the alarms of charts that concern it, most important first.
        complete: whether its start was seen.
        against: what fails it besides.
    """
    out = list(against)
    missing: list[str] = []
    unproven: list[str] = []
    closeness = 0.0
    for c in characteristics:
        for name, value in c.values.items():
            beyond, words = against_limits(c.info, name, value)
            closeness = max(closeness, min(beyond + 1.0, 1.0))
            if words and beyond > 0:
                out.append(Against(c.info.key.name, beyond, words))
            elif words:
                unproven.append(words)
        if c.charted and c.good == 0:
            missing.append(f"no Good reading of {c.info.key.name}")
        elif c.charted and c.other:
            missing.append(f"{c.other} of {c.good + c.other} readings of {c.info.key.name} are Bad or Uncertain")
    doubts = unproven + alarms + missing
    if not complete:
        doubts.append("incomplete: its start was not seen")
    return weigh(out, doubts, closeness)


def weigh(against: list[Against], doubts: list[str], closeness: float) -> Opinion:
    """The opinion that these give; the worst that fails it comes first, doubts keep their order."""
    out = sorted(against, key=lambda a: -a.beyond)
    reasons = (*(a.words for a in out), *doubts)
    if out:
        return Opinion("fail", 1.0, reasons, tuple(out), tuple(doubts), closeness)
    if doubts:
        score = round(min(0.4 + 0.1 * len(doubts), 0.9), 6)
        return Opinion("suspect", score, reasons, (), tuple(doubts), closeness)
    return Opinion("pass", round(0.4 * closeness, 6), (), (), (), closeness)


def against_limits(info: SignalInfo, name: str, value: float) -> tuple[float, str]:
    """How far beyond the nearer limit (negative inside; in half widths if there are two), and words if beyond.

    Words with at most 0 beyond say that the value is within a limit's guard band.
    """
    lsl, usl, unit = info.lsl, info.usl, f" {info.unit}".rstrip()
    middle_to_limit = (usl - lsl) / 2 if lsl is not None and usl is not None and usl > lsl else 0.0
    beyond, side, limit = -1.0, "", 0.0
    if lsl is not None and (over := lsl - value) > 0:
        beyond, side, limit = over, "below LSL", lsl
    elif usl is not None and (over := value - usl) > 0:
        beyond, side, limit = over, "above USL", usl
    if info.uncertainty and zone(value, lsl, usl, info.uncertainty) == "uncertain":
        lower = usl is None or (lsl is not None and abs(value - lsl) < abs(value - usl))
        near, nearest = ("LSL", lsl) if lower else ("USL", usl)
        words = (
            f"{name} of {info.key.name} {value:.6g}{unit} is within the guard band of {near} {nearest:.6g}{unit}: "
            f"nothing is proven at an uncertainty of {info.uncertainty:.3g}{unit}"
        )
        return 0.0, words
    if side:
        words = f"{name} of {info.key.name} {value:.6g}{unit} is {side} {limit:.6g}{unit} by {beyond:.3g}{unit}"
        return (beyond / middle_to_limit if middle_to_limit else beyond), words
    if middle_to_limit and lsl is not None:
        return abs(value - lsl - middle_to_limit) / middle_to_limit - 1.0, ""
    return -1.0, ""
