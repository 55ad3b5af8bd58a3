"""A machine that welds thermoplastic composite parts by induction.

Model, with its sources:

- The weld line is heated by eddy currents: the power falls with the square of the coil's distance for small changes,
  and the laminate follows as a first-order lag (A. Yousefpour, M. Hojjati, J.-P. Immarigeon, "Fusion bonding/welding of
  thermoplastic composites", J. Thermoplastic Compos. Mater. 17, 2004). Here only the resulting temperature is modelled.
- Profile of a weld: heat to 380 °C (PEKK melts at 337 °C), dwell, cool under pressure below the glass transition.
- Porosity grows where the melt is not consolidated: with lost pressure and with lost temperature, linearly for small
  losses. It is measured by ultrasonic C-scan, once a part. Bond strength falls with it.

Faults:

- `coil_gap`: the coil stands too far off: the weld line is `severity` * 25 K colder; more pores. Coil current and
  pressure are as commanded.
- `pressure_loss`: the bladder leaks: the pressure is lower by `severity` * 0.12 MPa; more pores.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

AMBIENT, WELD, WELD_SPREAD = 25.0, 380.0, 1.5  # °C
PRESSURE = 0.6  # MPa
POROSITY, POROSITY_SPREAD, POROSITY_USL = 1.0, 0.12, 2.0  # %
PER_KELVIN, PER_MPA = 0.06, 12.0  # % of pores
STRENGTH, STRENGTH_PER_POROSITY = 40.0, 4.0  # MPa, MPa per %
COLDER, LOST = 25.0, 0.12  # K, MPa: at severity 1
HEATING_SHARE = 0.12  # time constant of the laminate, in cycles


class CompositeWelder(Machine):
    """See the module."""

    KIND = "composite_welder"
    PROTOCOL = "opcua"
    ABOUT = "induction welder for thermoplastic composites; pores hide in the weld"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("weld_temperature", "°C", (0.0, 500.0), "iid", "weld line, by pyrometer: the profile"),
        gauge("pressure", "MPa", (0.0, 2.0), "iid", "bladder, during the weld", spec=(0.5, 0.7), target=PRESSURE),
        gauge("coil_current", "A", (0.0, 1000.0), "iid", "of the coil while it heats"),
        gauge("peak_temperature", "°C", (0.0, 500.0), "iid", "once a part", spec=(365.0, 395.0), target=WELD),
        gauge("porosity", "%", (0.0, 20.0), "iid", "ultrasonic scan, once a part", spec=(None, POROSITY_USL)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "coil_gap": ("peak_temperature", "weld_temperature", "porosity"),
        "pressure_loss": ("pressure", "porosity"),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is made alike
        ticks, rng = self.ticks, self.rng
        gap, leak = active.get("coil_gap"), active.get("pressure_loss")
        colder = COLDER * gap.severity if gap else 0.0
        lost = LOST * leak.severity if leak else 0.0
        peak = WELD + rng.normal(0.0, WELD_SPREAD) - colder

        steps = ticks - self.idle
        share = np.arange(1, steps + 1) / steps
        heating = share <= 0.6
        lag = HEATING_SHARE
        profile = np.where(
            heating, 1.0 - np.exp(-share / lag), (1.0 - math.exp(-0.6 / lag)) * np.exp(-(share - 0.6) / 0.3)
        )
        temperature, pressure, current = (np.full(ticks, np.nan) for _ in range(3))
        temperature[self.idle :] = AMBIENT + (peak - AMBIENT) * profile + rng.normal(0.0, 0.5, steps)
        pressure[self.idle :] = PRESSURE + rng.normal(0.0, 0.006) + rng.normal(0.0, 0.004, steps) - lost
        driven = 320.0 + rng.normal(0.0, 1.5) + rng.normal(0.0, 1.0, steps)
        current[self.idle :] = np.where(heating, driven, np.nan)
        porosity = POROSITY + rng.normal(0.0, POROSITY_SPREAD) + PER_KELVIN * colder + PER_MPA * lost
        return Cycle(
            {"weld_temperature": temperature, "pressure": pressure, "coil_current": current},
            [
                (self.measured, "peak_temperature", float(peak + rng.normal(0.0, 0.3))),
                (self.measured, "porosity", max(0.0, float(porosity + rng.normal(0.0, 0.02)))),
            ],
            {"porosity": float(porosity), "strength": float(STRENGTH - STRENGTH_PER_POROSITY * (porosity - POROSITY))},
            out_of_spec("porosity", float(porosity), 0.0, POROSITY_USL, "%"),
        )
