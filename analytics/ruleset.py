"""The run rules of one chart, Western Electric's or Nelson's, with their memory for many channels."""

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics import nelson, rules
from analytics.arl import nelson_arl, run_rules_arl
from analytics.state import grow, pack, unpack

Floats = NDArray[np.float64]
Family = Literal["western-electric", "nelson"]


class RuleSet(msgspec.Struct, frozen=True):
    """Which rules are in force.

    Attributes:
        family: whose.
        mask: bit n - 1 is rule n of that family.
    """

    family: Family = "western-electric"
    mask: int = 1

    @classmethod
    def of(cls, names: tuple[str, ...]) -> "RuleSet":
        """The set of the named rules: `western-electric`, `nelson`, or names of one of the two.

        Raises:
            ValueError: if one is unknown, or both families are mixed.
        """
        for family, module in (("western-electric", rules), ("nelson", nelson)):
            if names in ((family,), ()) or all(name in module.RULES for name in names):
                chosen = module.RULES if names == (family,) else names or ("1",)
                return cls(family, module.rule_mask(chosen))  # type: ignore[arg-type]  # one of the two
        known = f"western-electric, nelson, or a list of {', '.join(rules.RULES)} or of {', '.join(nelson.RULES)}"
        unknown = next((n for n in names if n not in (*rules.RULES, *nelson.RULES)), None)
        text = f"{unknown!r} is unknown" if unknown else "rules of Western Electric and of Nelson cannot be mixed"
        raise ValueError(f"{text}; use {known}")

    @property
    def names(self) -> tuple[str, ...]:
        """What each bit is called."""
        return rules.RULES if self.family == "western-electric" else nelson.RULES

    @property
    def limit_alone(self) -> bool:
        """Whether only the control limit counts."""
        return self.mask == 1

    def arl(self, unit: Any = 1.0, shift: Any = 0.0) -> Floats:
        """ARL with zones of `unit` sigmas and the mean off by `shift`."""
        work = run_rules_arl if self.family == "western-electric" else nelson_arl
        return work(self.mask, unit, shift)


class RuleMemory:
    """What the rules of a set remember of each channel."""

    def __init__(self, chosen: RuleSet) -> None:
        self.chosen = chosen
        self._nelson = chosen.family == "nelson"
        self._runs = (nelson if self._nelson else rules).new_state(0)
        self._previous = np.zeros(0)

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._runs, self._previous = grow(self._runs, channels), grow(self._previous, channels)

    def forget(self, channel: int) -> None:
        """Start a channel afresh."""
        self._runs[channel], self._previous[channel] = 0, np.nan

    def step(self, channel: NDArray[np.intp], value: Floats, center: Floats, half: Floats) -> NDArray[np.uint16]:
        """The rules that the next value of each channel breaks, (k,); limits stand at centre -/+ half."""
        if self.chosen.limit_alone:
            return (np.abs(value - center) > half).astype(np.uint16)
        zone = rules.zones(value, center, half / 3)
        if self._nelson:
            after, fired = nelson.step(self._runs[channel], zone, value, self._previous[channel])
            self._previous[channel] = value
        else:
            after, fired = rules.step(self._runs[channel], zone)
        self._runs[channel] = after
        return (fired & np.uint8(self.chosen.mask)).astype(np.uint16)

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"runs": pack(self._runs), "previous": pack(self._previous)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._runs, self._previous = unpack(saved["runs"]), unpack(saved["previous"])
