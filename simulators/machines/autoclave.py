"""An autoclave that cures a laminate a cycle.

Model, with its sources:

- The cure cycle is ramp, hold, cool; the laminate follows the air as a first-order lag. Pressure is applied before the
  hold; the bag is under vacuum from the start (F. C. Campbell, "Manufacturing Processes for Advanced Composites", ch.
  6).
- A void grows where the resin's pressure is below the vapour pressure of the water in it (J. L. Kardos, M. P.
  Duduković, R. Dave, "Void growth and resin transport", Adv. Polym. Sci. 80, 1986): so porosity grows as bag pressure
  rises, and as autoclave pressure falls; linearly for small changes.
- The degree of cure follows the time at temperature (Arrhenius); near full cure it loses 0.25 % a kelvin.

Faults:

- `vacuum_leak`: the bag's pressure is higher by `severity` * 60 mbar: more pores; temperature and pressure are as ever.
- `heater_failure`: one heater of four is out: the hold is `severity` * 9 K colder, and the laminate is not cured.
- `pressure_drop`: the compressor holds `severity` * 0.8 bar less: more pores.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

AMBIENT, HOLD, HOLD_SPREAD = 25.0, 180.0, 0.6  # °C
PRESSURE, BAG = 6.0, 40.0  # bar, mbar
POROSITY, POROSITY_SPREAD, POROSITY_USL = 0.8, 0.1, 1.6  # %
PER_MBAR, PER_BAR = 0.02, 1.6  # % of pores
CURE, CURE_SPREAD, CURE_LSL, PER_KELVIN = 98.0, 0.15, 96.8, 0.25  # %
LEAK, COLDER, LOWER = 60.0, 9.0, 0.8  # mbar, K, bar: at severity 1


class Autoclave(Machine):
    """See the module."""

    KIND = "autoclave"
    PROTOCOL = "opcua"
    ABOUT = "autoclave; leaks of vacuum make pores"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("air_temperature", "°C", (0.0, 300.0), "iid", "air: the profile"),
        gauge("pressure", "bar", (0.0, 12.0), "iid", "of the vessel: the profile"),
        gauge("bag_pressure", "mbar", (0.0, 1100.0), "iid", "absolute, in the vacuum bag", spec=(None, 80.0)),
        gauge("hold_temperature", "°C", (0.0, 300.0), "iid", "mean of the hold, once a part", spec=(174.0, 186.0)),
        gauge("porosity", "%", (0.0, 20.0), "iid", "ultrasonic scan, once a part", spec=(None, POROSITY_USL)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "vacuum_leak": ("bag_pressure", "porosity"),
        "heater_failure": ("hold_temperature", "air_temperature"),
        "pressure_drop": ("pressure", "porosity"),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is made alike
        ticks, rng = self.ticks, self.rng
        leak, heater, drop = (active.get(k) for k in ("vacuum_leak", "heater_failure", "pressure_drop"))
        leaked = LEAK * leak.severity if leak else 0.0
        colder = COLDER * heater.severity if heater else 0.0
        lower = LOWER * drop.severity if drop else 0.0

        steps = ticks - self.idle
        share = np.arange(1, steps + 1) / steps
        profile = np.interp(share, [0.0, 0.3, 0.75, 1.0], [0.05, 1.0, 1.0, 0.2])
        hold = HOLD + rng.normal(0.0, HOLD_SPREAD) - colder
        air, pressure, bag = (np.full(ticks, np.nan) for _ in range(3))
        air[self.idle :] = AMBIENT + (hold - AMBIENT) * profile + rng.normal(0.0, 0.3, steps)
        applied = np.interp(share, [0.0, 0.2, 0.9, 1.0], [0.1, 1.0, 1.0, 0.3])
        pressure[self.idle :] = applied * (PRESSURE + rng.normal(0.0, 0.04) - lower) + rng.normal(0.0, 0.02, steps)
        bag[self.idle :] = BAG + rng.normal(0.0, 2.0) + rng.normal(0.0, 1.5, steps) + leaked
        porosity = POROSITY + rng.normal(0.0, POROSITY_SPREAD) + PER_MBAR * leaked + PER_BAR * lower
        cure = CURE + rng.normal(0.0, CURE_SPREAD) - PER_KELVIN * colder
        return Cycle(
            {"air_temperature": air, "pressure": np.maximum(pressure, 0.0), "bag_pressure": bag},
            [
                (self.measured, "hold_temperature", float(hold + rng.normal(0.0, 0.1))),
                (self.measured, "porosity", max(0.0, float(porosity + rng.normal(0.0, 0.02)))),
            ],
            {"porosity": float(porosity), "cure": float(cure)},
            out_of_spec("porosity", float(porosity), 0.0, POROSITY_USL, "%")
            or out_of_spec("cure", float(cure), CURE_LSL, 100.0, "%"),
        )
