"""What is known of every checked sensor, in columns; a slot is one signal."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.config import span_ns
from analytics.health.config import CHECKS, HealthConfig, SensorRule
from analytics.health.reference import COARSE, JUMP, STILL, Reference, no_chance
from analytics.state import grow, pack, unpack
from fieldlab.model import SignalKey

NEVER = 2**62
WELL_SICK = ("", *CHECKS)  # number in the column SICK → rule
LEARNING, JUDGED, DULL = range(3)

# Integer columns: what goes on, and the bounds that follow from the reference.
(
    STAGE, SEEN, STOOD, TIME, EQUAL, STILLS, OUT, SICK, WELL, JUMPED, PASSED, SPIKE1, SPIKE2, FILLED, EQUALS, PARTS,
    EQUAL_SICK, EQUAL_DOUBT, STILL_SICK, STILL_DOUBT, SILENT, MAY, MACHINE,
    FIXED,
) = range(24)  # fmt: skip
# Float columns.
LAST, TRUSTED, SMALLEST, LARGEST, LOW, HIGH, STILL_BELOW, JUMP_ABOVE, LOWEST, HIGHEST, TYPICAL = range(11)


class Desk(msgspec.Struct):
    """Where the first readings of a signal are gathered."""

    value: NDArray[np.float64]
    time: NDArray[np.int64]
    broken: NDArray[np.bool_]


class SensorTable:
    """Slots and their columns.

    Attributes:
        keys: the signal of each slot.
        rules: what is configured for it.
        references: what was learned of it.
        whole: integer columns, (slots, …).
        real: float columns, (slots, …).
        desks: of slots that learn.
    """

    def __init__(self) -> None:
        self.keys: list[SignalKey] = []
        self.slot: dict[SignalKey, int] = {}
        self.rules: list[SensorRule] = []
        self.references: list[Reference | None] = []
        self.whole = np.zeros((0, 24), np.int64)
        self.real = np.zeros((0, 11))
        self.desks: dict[int, Desk] = {}

    def add(self, key: SignalKey, machine: int, config: HealthConfig) -> int:
        """The slot of a signal, by what is configured now."""
        slot = self.slot.get(key)
        rule = config.sensor(key.short)
        if slot is None:
            slot = self.slot[key] = len(self.keys)
            self.keys.append(key)
            self.rules.append(rule)
            self.references.append(None)
            self.whole, self.real = grow(self.whole, slot + 1), grow(self.real, slot + 1)
            self.whole[slot] = 0
            self.whole[slot, SPIKE1] = self.whole[slot, SPIKE2] = -NEVER
            self.real[slot] = np.nan
            self.real[slot, SMALLEST] = np.inf
            self.learn(slot, config.learn)
        self.whole[slot, MACHINE], self.rules[slot] = machine, rule
        self.bound(slot)
        return slot

    def learn(self, slot: int, readings: int) -> None:
        """Begin to learn."""
        self.whole[slot, STAGE] = LEARNING
        self.whole[slot, SEEN] = 0
        self.desks[slot] = Desk(np.zeros(readings), np.zeros(readings, np.int64), np.zeros(readings, bool))

    def learned(self, slot: int, reference: Reference | None) -> None:
        """End to learn: judge from now on, or wait until the signal moves."""
        readings = len(self.desks.pop(slot).value)
        self.references[slot] = reference
        self.whole[slot, STAGE] = DULL if reference is None else JUDGED
        if reference is not None:
            self.real[slot, [LOW, HIGH, LARGEST]] = reference.low, reference.high, reference.largest
        self.bound(slot, readings)

    def bound(self, slot: int, readings: int = 300) -> None:
        """Set the bounds of a slot from its reference and configuration."""
        rule, found, whole, real = self.rules[slot], self.references[slot], self.whole[slot], self.real[slot]
        whole[[EQUAL_SICK, EQUAL_DOUBT, STILL_SICK, STILL_DOUBT, SILENT]] = NEVER
        real[[LOWEST, HIGHEST, JUMP_ABOVE]] = -np.inf, np.inf, np.inf
        real[STILL_BELOW] = -1.0
        made = [check for check in CHECKS if rule.health is None or check in rule.health]
        whole[MAY] = sum(1 << CHECKS.index(check) for check in made)
        if "saturated" in made and rule.range is not None:
            real[[LOWEST, HIGHEST]] = rule.range
        if "stuck" in made and rule.stuck:
            whole[EQUAL_SICK], whole[EQUAL_DOUBT] = rule.stuck - 1, max(1, rule.stuck // 3)
        if "silent" in made and rule.silent:
            whole[SILENT] = span_ns(rule.silent)
        if "spiking" in made and rule.step is not None:
            real[JUMP_ABOVE] = rule.step
        whole[FIXED] = bool("stuck" in made and rule.stuck) + 2 * bool("spiking" in made and rule.step is not None)
        if found is None:
            return
        real[TYPICAL] = found.typical
        if "stuck" in made and not rule.stuck:
            whole[[EQUAL_SICK, EQUAL_DOUBT]] = no_chance(
                found.equal, found.equal_run, readings, coarse=found.equal >= COARSE
            )
        if "flat" in made:
            whole[[STILL_SICK, STILL_DOUBT]] = no_chance(
                found.still, found.still_run, readings, coarse=found.equal >= COARSE
            )
            real[STILL_BELOW] = STILL * found.typical
        if "silent" in made and not rule.silent and np.isfinite(found.silence):
            whole[SILENT] = round(found.silence * 1e9)
        if "spiking" in made and rule.step is None and found.fast:
            real[JUMP_ABOVE] = JUMP * real[LARGEST]

    def quantisable(self, slot: int) -> bool:
        """Whether a coarse signal would be a change."""
        found = self.references[slot]
        return (
            found is not None and found.equal < COARSE and bool(self.whole[slot, MAY] >> CHECKS.index("quantised") & 1)
        )

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        n = len(self.keys)
        return {
            "keys": [msgspec.to_builtins(k) for k in self.keys],
            "references": [msgspec.to_builtins(r) for r in self.references],
            "whole": pack(self.whole[:n]),
            "real": pack(self.real[:n]),
            "desks": [(s, pack(d.value), pack(d.time), pack(d.broken)) for s, d in self.desks.items()],
        }

    def load(self, saved: dict[str, Any], config: HealthConfig) -> None:
        """Take the state of `save`."""
        self.keys = [msgspec.convert(k, SignalKey) for k in saved["keys"]]
        self.slot = {key: i for i, key in enumerate(self.keys)}
        self.rules = [config.sensor(key.short) for key in self.keys]
        self.references = [msgspec.convert(r, Reference | None) for r in saved["references"]]
        self.whole, self.real = unpack(saved["whole"]), unpack(saved["real"])
        self.desks = {int(s): Desk(unpack(v), unpack(t), unpack(b)) for s, v, t, b in saved["desks"]}
