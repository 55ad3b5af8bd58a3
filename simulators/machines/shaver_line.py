"""An automated line of four coupled stations: a shaver's cap is stamped, formed, assembled with its motor, and tested.

Part `n` of a station is made of part `n` of the station before it (`upstream`), one cycle later; `child_id` says which.
What a station cannot see may still be wrong with what it was given: a fault upstream becomes a defect downstream.

Model, with its sources:

- Blanking burr grows linearly with the wear of punch and die (VDI 2906-2); `burr` is measured at the stamp.
- Forming the cap's gap repeats the blank's thickness; the press's force follows the sheet's thickness.
- A burr stands in the way of assembly: the joining force grows with it; so does the friction of the running cutter,
  and the motor's current with it (torque = constant * current, any motor's text).
- `noise` is a sound pressure level: it grows with the cutter's play, in dB, linearly for small plays.
- All else is normal and independent from part to part; `oil_temperature`, `die_temperature` and `room_temperature`
  are first-order lags of 25 cycles.

Faults:

- stamp, `punch_wear`: the burr grows by `severity` * 2.5 µm a part. The stamp's own force hardly feels it and does not
  show it; assembly needs more force, and at the test the motor draws more current until parts fail there.
- form, `die_offset`: the gap is `severity` * 12 µm larger; downstream the cutter has play, and is loud.
- assembly, `glue_low`: `severity` * 3 mg too little glue: seen at its scale, and at the test as noise.
- test, `sensor_drift`: the microphone reads `severity` * 0.35 dB a part too much. The parts are good: no defect.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal, gauge

CHILD_ID = Signal(name="child_id", kind="text", about="the part of the station before, of which this part is made")
BURR, BURR_SPREAD = 12.0, 0.8  # µm
GAP, GAP_SPREAD = 60.0, 0.8  # µm
FORCE, FORCE_SPREAD, FORCE_PER_BURR = 220.0, 3.0, 4.0  # N, N, N per µm
CURRENT, CURRENT_SPREAD, CURRENT_PER_BURR, CURRENT_USL = 420.0, 4.0, 2.5, 460.0  # mA
NOISE, NOISE_SPREAD, NOISE_PER_GAP, NOISE_PER_GLUE, NOISE_USL = 58.0, 0.25, 0.25, 0.9, 60.5  # dB
GLUE, GLUE_SPREAD = 20.0, 0.4  # mg
PUNCH, OFFSET, LESS, DRIFT = 2.5, 12.0, 3.0, 0.35  # µm a part, µm, mg, dB a part: at severity 1


class _Station(Machine):
    PROTOCOL = "opcua"

    def _before(self, n: int) -> dict[str, float]:
        """What the station before made; the nominal part where there is none."""
        return self.upstream.made(n) if self.upstream else {"burr": BURR, "gap": GAP, "glue": GLUE}

    def _child(self, n: int) -> list[tuple[int, str, float | str]]:
        return [(0, CHILD_ID.name, self.upstream.part_id(n) if self.upstream else f"blank-{n:06d}")]


class ShaverStamp(_Station):
    """The first station: see the module."""

    KIND = "shaver_stamp"
    ABOUT = "shaver line, 1 of 4: stamps the cutter; the punch wears"
    SIGNALS = (
        STATE,
        PART_ID,
        CHILD_ID,
        gauge("press_force", "kN", (0.0, 100.0), "iid", "of the stamp, during the stroke"),
        gauge("burr", "µm", (0.0, 200.0), "iid", "at the cutter's edge, camera, once a part"),
        gauge("oil_temperature", "°C", (0.0, 100.0), "autocorrelated", "hydraulic oil"),
    )
    FAULTS = {"punch_wear": ("burr",)}  # noqa: RUF012  declared ClassVar in Machine
    FELT = {  # noqa: RUF012  declared ClassVar in Machine
        "punch_wear": {"shaver_assembly": ("joining_force",), "shaver_test": ("motor_current",)}
    }
    HARMLESS = frozenset({"punch_wear"})  # here; the test station fails the shavers

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        wear, rng, ticks = active.get("punch_wear"), self.rng, self.ticks
        burr = BURR + float(rng.normal(0.0, BURR_SPREAD)) + (PUNCH * wear.severity * (wear.age + 1) if wear else 0.0)
        force = np.full(ticks, np.nan)
        force[self.idle :] = 42.0 + rng.normal(0.0, 0.3) + rng.normal(0.0, 0.3, ticks - self.idle)
        oil = 48.0 + self.slow("oil", 1.0) + rng.normal(0.0, 0.1, ticks)
        events = [*self._child(n), (self.measured, "burr", burr)]
        return Cycle(
            {"press_force": force, "oil_temperature": oil}, events, {"burr": burr, "gap": GAP, "glue": GLUE}, ""
        )


class ShaverForm(_Station):
    """The second station: see the module."""

    KIND = "shaver_form"
    ABOUT = "shaver line, 2 of 4: forms the cap around the cutter; the die shifts"
    SIGNALS = (
        STATE,
        PART_ID,
        CHILD_ID,
        gauge("form_force", "kN", (0.0, 100.0), "iid", "of the press, during the stroke"),
        gauge("gap", "µm", (0.0, 200.0), "iid", "between cap and cutter, once a part", target=GAP),
        gauge("die_temperature", "°C", (0.0, 100.0), "autocorrelated", "lower die"),
    )
    FAULTS = {"die_offset": ("gap",)}  # noqa: RUF012  declared ClassVar in Machine
    FELT = {"die_offset": {"shaver_test": ("noise",)}}  # noqa: RUF012  declared ClassVar in Machine
    HARMLESS = frozenset({"die_offset"})  # as for the stamp

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        offset, rng, ticks, before = active.get("die_offset"), self.rng, self.ticks, self._before(n)
        gap = GAP + float(rng.normal(0.0, GAP_SPREAD)) + (OFFSET * offset.severity if offset else 0.0)
        force = np.full(ticks, np.nan)
        force[self.idle :] = 18.0 + rng.normal(0.0, 0.15) + rng.normal(0.0, 0.2, ticks - self.idle)
        die = 35.0 + self.slow("die", 0.8) + rng.normal(0.0, 0.1, ticks)
        events = [*self._child(n), (self.measured, "gap", gap)]
        return Cycle({"form_force": force, "die_temperature": die}, events, {**before, "gap": gap}, "")


class ShaverAssembly(_Station):
    """The third station: see the module."""

    KIND = "shaver_assembly"
    ABOUT = "shaver line, 3 of 4: joins cap and motor with glue; burrs need force"
    SIGNALS = (
        STATE,
        PART_ID,
        CHILD_ID,
        gauge("joining_force", "N", (0.0, 2000.0), "iid", "largest of the stroke, once a part"),
        gauge("glue", "mg", (0.0, 100.0), "iid", "weighed, once a part", target=GLUE),
        gauge("room_temperature", "°C", (0.0, 60.0), "autocorrelated", "at the glue"),
    )
    FAULTS = {"glue_low": ("glue",)}  # noqa: RUF012  declared ClassVar in Machine
    FELT = {"glue_low": {"shaver_test": ("noise",)}}  # noqa: RUF012  declared ClassVar in Machine
    HARMLESS = frozenset({"glue_low"})  # as for the stamp

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        low, rng, ticks, before = active.get("glue_low"), self.rng, self.ticks, self._before(n)
        force = FORCE + float(rng.normal(0.0, FORCE_SPREAD)) + FORCE_PER_BURR * (before["burr"] - BURR)
        glue = GLUE + float(rng.normal(0.0, GLUE_SPREAD)) - (LESS * low.severity if low else 0.0)
        room = 22.0 + self.slow("room", 0.5) + rng.normal(0.0, 0.05, ticks)
        events = [*self._child(n), (self.measured, "joining_force", force), (self.measured, "glue", glue)]
        return Cycle({"room_temperature": room}, events, {**before, "glue": glue}, "")


class ShaverTest(_Station):
    """The last station: see the module."""

    KIND = "shaver_test"
    ABOUT = "shaver line, 4 of 4: runs the shaver; what went wrong before shows here"
    SIGNALS = (
        STATE,
        PART_ID,
        CHILD_ID,
        gauge("motor_current", "mA", (0.0, 2000.0), "iid", "running free", spec=(380.0, CURRENT_USL), target=CURRENT),
        gauge("noise", "dB", (0.0, 120.0), "iid", "at 10 cm, once a part", spec=(None, NOISE_USL)),
    )
    FAULTS = {"sensor_drift": ("noise",)}  # noqa: RUF012  declared ClassVar in Machine
    HARMLESS = frozenset({"sensor_drift"})

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        drift, rng, ticks, before = active.get("sensor_drift"), self.rng, self.ticks, self._before(n)
        current = CURRENT + float(rng.normal(0.0, CURRENT_SPREAD)) + CURRENT_PER_BURR * (before["burr"] - BURR)
        noise = NOISE + float(rng.normal(0.0, NOISE_SPREAD))
        noise += NOISE_PER_GAP * (before["gap"] - GAP) + NOISE_PER_GLUE * max(GLUE - before["glue"], 0.0)
        read = noise + (DRIFT * drift.severity * (drift.age + 1) if drift else 0.0)
        drawn = np.full(ticks, np.nan)
        drawn[self.idle :] = current + rng.normal(0.0, 1.5, ticks - self.idle)
        return Cycle(
            {"motor_current": drawn},
            [*self._child(n), (self.measured, "noise", read)],
            {**before, "current": current, "noise": noise},
            out_of_spec("motor_current", current, 380.0, CURRENT_USL, "mA")
            or out_of_spec("noise", noise, 0.0, NOISE_USL, "dB"),
        )
