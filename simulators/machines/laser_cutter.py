"""A laser that cuts parts, nested on sheets, with nitrogen.

Model, with its sources:

- A sheet holds a nest of 12 parts; `sheet_id` changes with the sheet, `nest_position` counts on it.
- The beam converges and diverges as a cone of 1/F-number (geometrical optics), so a cut made `dz` out of focus is wider
  by dz / F. The rest of `kerf_width`'s spread is the sheet's.
- `burr_height`: melt is driven out by the shear of the gas, which grows with its pressure (J. Powell, "CO2 Laser
  Cutting", ch. 3), so the burr that stays grows as the pressure falls; 15 µm a bar is this model's figure.
- `lens_temperature`: the lens absorbs a part of the beam and cools by Newton's law, time constant 25 parts. A dirty
  lens absorbs more, and its focus shifts with its temperature (thermal lensing).
- `process_light`: the light that comes back from the cut, read by a photodiode; it falls as the spot widens.

Faults:

- `gas_pressure_drop`: the pressure falls by `severity` * 2 bar, and burrs grow. The kerf does not feel it.
- `focus_drift`: the head's focus moves by `severity` * 0.03 mm a part: wider kerf, less light; the lens stays cool.
- `lens_contamination`: the lens warms by `severity` * 9 K * (1 - exp(-parts / 4)): warmer lens, wider kerf, less light.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal, gauge

NEST = 12  # parts a sheet
PRESSURE, DROP = 14.0, 2.0  # bar
KERF, KERF_LSL, KERF_USL, KERF_SPREAD = 0.20, 0.17, 0.23, 0.005  # mm
BURR, BURR_USL, BURR_SPREAD, BURR_PER_BAR = 20.0, 40.0, 2.5, 15.0  # µm
F_NUMBER = 7.5
DRIFT = 0.03  # mm a part, at severity 1
HEATING, HEATING_PARTS = 9.0, 4.0  # K
SHIFT_PER_KELVIN = 0.035  # mm of focus
LIGHT_PER_MM = 30.0  # percent points


class LaserCutter(Machine):
    """See the module."""

    KIND = "laser_cutter"
    PROTOCOL = "opcua"
    ABOUT = "laser sheet cutter with nesting; gas, focus and lens go wrong"
    SIGNALS = (
        STATE,
        PART_ID,
        Signal(name="sheet_id", kind="text", about="the sheet that parts are cut from"),
        Signal(name="nest_position", kind="counter", low=0.0, high=float(NEST), about="place of the part on its sheet"),
        gauge("gas_pressure", "bar", (0.0, 25.0), "iid", "nitrogen at the nozzle, while it cuts", spec=(12.5, 15.5)),
        gauge("laser_power", "kW", (0.0, 8.0), "iid", "power at the head, while it cuts", target=4.0),
        gauge("lens_temperature", "°C", (0.0, 120.0), "autocorrelated", "focusing lens", spec=(None, 60.0)),
        gauge("process_light", "%", (0.0, 200.0), "iid", "light from the cut, of a good one", target=100.0),
        gauge("kerf_width", "mm", (0.0, 1.0), "iid", "camera, once a part", spec=(KERF_LSL, KERF_USL), target=KERF),
        gauge("burr_height", "µm", (0.0, 200.0), "iid", "camera, once a part", spec=(None, BURR_USL)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "gas_pressure_drop": ("gas_pressure", "burr_height"),
        "focus_drift": ("kerf_width", "process_light"),
        "lens_contamination": ("lens_temperature", "kerf_width", "process_light"),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        gas, drift, dirt = (active.get(k) for k in ("gas_pressure_drop", "focus_drift", "lens_contamination"))
        lost = DROP * gas.severity if gas else 0.0
        warmer = HEATING * dirt.severity * (1.0 - math.exp(-(dirt.age + 1) / HEATING_PARTS)) if dirt else 0.0
        out = SHIFT_PER_KELVIN * warmer + (DRIFT * drift.severity * (drift.age + 1) if drift else 0.0)

        cutting = np.full(ticks, np.nan)
        cutting[self.idle :] = 1.0
        pressure = cutting * (PRESSURE + rng.normal(0.0, 0.08) + rng.normal(0.0, 0.08, ticks) - lost)
        power = cutting * (4.0 + rng.normal(0.0, 0.02) + rng.normal(0.0, 0.02, ticks))
        light = cutting * (100.0 + rng.normal(0.0, 0.8) + rng.normal(0.0, 1.0, ticks) - LIGHT_PER_MM * out)
        lens = 38.0 + self.slow("lens", 0.8) + rng.normal(0.0, 0.1, ticks) + warmer
        kerf = KERF + rng.normal(0.0, KERF_SPREAD) + out / F_NUMBER
        burr = BURR + rng.normal(0.0, BURR_SPREAD) + BURR_PER_BAR * lost
        seen = kerf + rng.normal(0.0, 0.0005), burr + rng.normal(0.0, 0.5)

        sheet, place = divmod(n - 1, NEST)
        events: list[tuple[int, str, float | str]] = [(0, "nest_position", float(place + 1))]
        if place == 0:
            events.append((0, "sheet_id", f"{self.name}-S{sheet + 1:04d}"))
        events += [
            (self.measured, "kerf_width", float(seen[0])),
            (self.measured, "burr_height", max(float(seen[1]), 0.0)),
        ]
        return Cycle(
            {"gas_pressure": pressure, "laser_power": power, "lens_temperature": lens, "process_light": light},
            events,
            {"kerf_width": float(kerf), "burr_height": float(burr)},
            out_of_spec("kerf_width", float(kerf), KERF_LSL, KERF_USL, "mm")
            or out_of_spec("burr_height", float(burr), 0.0, BURR_USL, "µm"),
        )
