"""A bay of a greenhouse: a part is one climate interval, of which 144 make a day.

Model, with its sources:

- Light and air temperature follow the day (a sine), the air as a first-order lag of the screen's and the vents'
  control.
- Relative humidity falls as the air warms, at constant water content (Magnus' formula, linear for a few kelvin).
- The soil dries by evapotranspiration and is watered (FAO Irrigation and Drainage Paper 56): volumetric water content
  wanders around its set point as a first-order lag of 40 intervals.
- Carbon dioxide is dosed to its set point.

All of it is autocorrelated: a control chart must say so, and residuals or longer windows are the way.

Faults:

- `drip_blocked`: no water: the soil falls by `severity` * 0.9 percent points an interval; nothing in the air shows it.
- `vent_stuck`: the vents stay shut: the air is `severity` * 14 K warmer, and `severity` * 22 points drier in relative
  terms.
- `co2_empty`: the bottle is empty: carbon dioxide falls by `severity` * 420 ppm.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

DAY = 144  # intervals
AIR, AIR_SWING, AIR_USL, STUCK = 21.0, 3.0, 32.0, 14.0  # °C, K
HUMIDITY, HUMIDITY_PER_KELVIN, DRIER = 75.0, 1.2, 22.0  # %, points
SOIL, SOIL_LSL, DRYING = 32.0, 26.0, 0.9  # % by volume
CO2, CO2_LSL, CO2_LOST = 900.0, 600.0, 420.0  # ppm


class Greenhouse(Machine):
    """See the module."""

    KIND = "greenhouse"
    PROTOCOL = "mqtt"
    DIALECTS = ("json", "sparkplug")
    ABOUT = "greenhouse bay: climate and soil, slow and autocorrelated"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("light", "µmol/m²/s", (0.0, 2500.0), "autocorrelated", "photosynthetically active, at the crop"),
        gauge("air_temperature", "°C", (-20.0, 60.0), "autocorrelated", "at the crop", spec=(None, AIR_USL)),
        gauge("humidity", "%", (0.0, 100.0), "autocorrelated", "relative, at the crop"),
        gauge("soil_moisture", "%", (0.0, 100.0), "autocorrelated", "by volume, at the roots", spec=(SOIL_LSL, None)),
        gauge("co2", "ppm", (0.0, 5000.0), "autocorrelated", "at the crop", spec=(CO2_LSL, None)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "drip_blocked": ("soil_moisture",),
        "vent_stuck": ("air_temperature", "humidity"),
        "co2_empty": ("co2",),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        dry, stuck, empty = (active.get(k) for k in ("drip_blocked", "vent_stuck", "co2_empty"))
        day = np.sin(2.0 * math.pi * ((n - 1) + np.arange(ticks) / ticks) / DAY)
        cloud, wander = self.slow("cloud", 40.0), self.slow("air", 0.5)
        noise = rng.normal(0.0, 1.0, (5, ticks))
        air = AIR + AIR_SWING * day + wander
        wet = HUMIDITY - HUMIDITY_PER_KELVIN * (air - AIR) + self.slow("wet", 1.0)
        soil = SOIL + self.slow("soil", 0.8, 40.0) - (DRYING * dry.severity * (dry.age + 1) if dry else 0.0)
        gas = CO2 + self.slow("co2", 30.0) - (CO2_LOST * empty.severity if empty else 0.0)
        if stuck:
            air = air + STUCK * stuck.severity
            wet = wet - DRIER * stuck.severity
        truth = {"soil_moisture": float(soil.mean()), "air_temperature": float(air.mean()), "co2": float(gas.mean())}
        return Cycle(
            {
                "light": np.clip(600.0 + 500.0 * day + cloud + 4.0 * noise[0], 0.0, 2500.0),
                "air_temperature": air + 0.1 * noise[1],
                "humidity": np.clip(wet + 0.3 * noise[2], 0.0, 100.0),
                "soil_moisture": np.clip(soil + 0.1 * noise[3], 0.0, 100.0),
                "co2": np.maximum(gas + 5.0 * noise[4], 0.0),
            },
            [],
            truth,
            out_of_spec("soil_moisture", truth["soil_moisture"], SOIL_LSL, 100.0, "%")
            or out_of_spec("air_temperature", truth["air_temperature"], -20.0, AIR_USL, "°C")
            or out_of_spec("co2", truth["co2"], CO2_LSL, 5000.0, "ppm"),
        )
