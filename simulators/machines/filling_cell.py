"""A cell that fills, closes and seals jars; it speaks Sparkplug B, as an edge node with one device.

Model, with its sources:

- Fill weight of a time-controlled valve is flow * opening time; flow goes with the square root of the head
  (Torricelli). In control it is normal and independent (the average weight system of OIML R 87 rests on that).
- The sealing bar is held at its temperature by a controller, so noise is all that is left; the seal's strength falls
  when it is colder (hot tack, linear near the set point).
- `tank_level` falls as jars are filled and is topped up; it is kept within a band, as a slow level of 25 jars.

Faults:

- `valve_wear`: the valve closes late: `severity` * 0.35 g a jar more. The sealing does not feel it.
- `sealer_cold`: the heater ages: `severity` * 9 K colder, and seals open.
- `label_jam`: labels sit `severity` * 1.6 mm off.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

WEIGHT, WEIGHT_SPREAD, WEIGHT_TOLERANCE = 250.0, 0.4, 2.5  # g
SEAL, STRENGTH, STRENGTH_SPREAD, STRENGTH_LSL, PER_KELVIN = 165.0, 30.0, 0.8, 25.0, 0.9  # °C, N, N, N, N/K
LABEL_SPREAD, LABEL_TOLERANCE = 0.2, 1.1  # mm
LATE, COLDER, OFF = 0.35, 9.0, 1.6  # g a jar, K, mm: at severity 1


class FillingCell(Machine):
    """See the module."""

    KIND = "filling_cell"
    PROTOCOL = "mqtt"
    DIALECTS = ("sparkplug", "json")
    ABOUT = "filling cell (Sparkplug B); valve, sealer and labels go wrong"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("tank_level", "%", (0.0, 100.0), "autocorrelated", "of the product tank"),
        gauge("seal_temperature", "°C", (0.0, 300.0), "iid", "of the bar", spec=(155.0, 175.0), target=SEAL),
        gauge(
            "fill_weight",
            "g",
            (0.0, 500.0),
            "iid",
            "checkweigher, once a jar",
            spec=(WEIGHT - WEIGHT_TOLERANCE, WEIGHT + WEIGHT_TOLERANCE),
            target=WEIGHT,
        ),
        gauge(
            "label_offset", "mm", (-10.0, 10.0), "iid", "camera, once a jar", spec=(-LABEL_TOLERANCE, LABEL_TOLERANCE)
        ),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "valve_wear": ("fill_weight",),
        "sealer_cold": ("seal_temperature",),
        "label_jam": ("label_offset",),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every jar is filled alike
        ticks, rng = self.ticks, self.rng
        valve, cold, jam = (active.get(k) for k in ("valve_wear", "sealer_cold", "label_jam"))
        colder = COLDER * cold.severity if cold else 0.0
        seal = np.full(ticks, np.nan)
        seal[self.idle :] = SEAL + rng.normal(0.0, 0.5) + rng.normal(0.0, 0.6, ticks - self.idle) - colder
        tank = np.clip(60.0 + self.slow("tank", 4.0) + rng.normal(0.0, 0.2, ticks), 0.0, 100.0)
        weight = WEIGHT + rng.normal(0.0, WEIGHT_SPREAD) + (LATE * valve.severity * (valve.age + 1) if valve else 0.0)
        label = rng.normal(0.0, LABEL_SPREAD) + (OFF * jam.severity if jam else 0.0)
        strength = STRENGTH + rng.normal(0.0, STRENGTH_SPREAD) - PER_KELVIN * colder
        seen = weight + rng.normal(0.0, 0.05), label + rng.normal(0.0, 0.02)
        low, high = WEIGHT - WEIGHT_TOLERANCE, WEIGHT + WEIGHT_TOLERANCE
        return Cycle(
            {"tank_level": tank, "seal_temperature": seal},
            [(self.measured, "fill_weight", float(seen[0])), (self.measured, "label_offset", float(seen[1]))],
            {"fill_weight": float(weight), "label_offset": float(label), "seal_strength": float(strength)},
            out_of_spec("fill_weight", float(weight), low, high, "g")
            or out_of_spec("seal_strength", float(strength), STRENGTH_LSL, 60.0, "N")
            or out_of_spec("label_offset", float(label), -LABEL_TOLERANCE, LABEL_TOLERANCE, "mm"),
        )
