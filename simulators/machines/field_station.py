"""A sensor station in a field: a part is one interval, of which 96 make a day.

Model, with its sources:

- Air temperature follows the day (a sine) and the weather (a first-order lag of 40 intervals); relative humidity the
  other way round (Magnus' formula).
- Leaf wetness, in percent of time, rises as the air nears its dew point (L. Huber, T. J. Gillespie, "Modeling leaf
  wetness", Annu. Rev. Phytopathol. 30, 1992): here linear in the humidity.
- Soil moisture at two depths: the deeper is slower (time constants of 40 and 120 intervals).
- Wind speed is autocorrelated; the battery sags slowly.

An interval is bad when what was sent cannot be used to advise a farmer: when a sensor is more than its class off.

Faults:

- `leaf_sensor_dirty`: it feels wet by `severity` * 45 points. The air's humidity is as ever.
- `soil_probe_loose`: air at the probe: the upper soil reads `severity` * 14 points low; the lower is as ever.
- `battery_low`: the voltage falls by `severity` * 0.05 V an interval; the readings stay good.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

DAY = 96  # intervals
DIRTY, LOOSE, SAGGING = 45.0, 14.0, 0.05  # points, points, V an interval: at severity 1
CLASS = 5.0  # points off, at most, for good advice


class FieldStation(Machine):
    """See the module."""

    KIND = "field_station"
    PROTOCOL = "mqtt"
    DIALECTS = ("json", "sparkplug")
    ABOUT = "field station: weather, leaf wetness and soil moisture"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("air_temperature", "°C", (-40.0, 60.0), "autocorrelated", "at 1.5 m"),
        gauge("humidity", "%", (0.0, 100.0), "autocorrelated", "relative, at 1.5 m"),
        gauge("leaf_wetness", "%", (0.0, 100.0), "autocorrelated", "share of the sensor that is wet"),
        gauge("soil_moisture_20", "%", (0.0, 100.0), "autocorrelated", "by volume, 20 cm deep"),
        gauge("soil_moisture_60", "%", (0.0, 100.0), "autocorrelated", "by volume, 60 cm deep"),
        gauge("wind_speed", "m/s", (0.0, 60.0), "autocorrelated", "at 2 m"),
        gauge("battery", "V", (0.0, 5.0), "autocorrelated", "of the station", spec=(3.0, None)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "leaf_sensor_dirty": ("leaf_wetness",),
        "soil_probe_loose": ("soil_moisture_20",),
        "battery_low": ("battery",),
    }
    HARMLESS = frozenset({"battery_low"})

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        dirty, loose, low = (active.get(k) for k in ("leaf_sensor_dirty", "soil_probe_loose", "battery_low"))
        day = np.sin(2.0 * math.pi * ((n - 1) + np.arange(ticks) / ticks) / DAY)
        noise = rng.normal(0.0, 1.0, (7, ticks))
        air = 14.0 + 5.0 * day + self.slow("weather", 1.5, 40.0)
        humidity = 70.0 - 1.5 * (air - 14.0) + self.slow("vapour", 2.0)
        wet = 20.0 + 0.8 * (humidity - 70.0) + (DIRTY * dirty.severity if dirty else 0.0)
        upper = 28.0 + self.slow("upper", 0.8, 40.0) - (LOOSE * loose.severity if loose else 0.0)
        lower = 31.0 + self.slow("lower", 0.5, 120.0)
        wind = 5.0 + self.slow("wind", 0.7)
        battery = 3.7 + self.slow("battery", 0.01) - (SAGGING * low.severity * (low.age + 1) if low else 0.0)
        off = {
            "leaf_wetness": DIRTY * dirty.severity if dirty else 0.0,
            "soil_moisture_20": LOOSE * loose.severity if loose else 0.0,
        }
        why = [f"{signal} is {points:g} % off" for signal, points in off.items() if points > CLASS]
        return Cycle(
            {
                "air_temperature": air + 0.1 * noise[0],
                "humidity": np.clip(humidity + 0.4 * noise[1], 0.0, 100.0),
                "leaf_wetness": np.clip(wet + 0.4 * noise[2], 0.0, 100.0),
                "soil_moisture_20": np.clip(upper + 0.1 * noise[3], 0.0, 100.0),
                "soil_moisture_60": np.clip(lower + 0.05 * noise[4], 0.0, 100.0),
                "wind_speed": np.maximum(wind + 0.15 * noise[5], 0.0),
                "battery": battery + 0.001 * noise[6],
            },
            [],
            {f"{signal}_error": points for signal, points in off.items()},
            "; ".join(why),
        )
