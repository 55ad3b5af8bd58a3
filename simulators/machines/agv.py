"""A driverless vehicle that speaks VDA 5050: a part is one transport order.

Model, with its sources:

- The vehicle drives a rectangle of 24 m by 12 m at 1.5 m/s, one side a quarter of the order (VDA 5050 2.0:
  `agvPosition` and `velocity`).
- Driving draws current, and the battery's voltage falls by it over its inner resistance (Ohm); the state of charge goes
  down over 40 orders and is charged again, in a saw.
- `localization_score` (0 to 1) is how well the scan fits the map; `deviation` (m) how far the vehicle is off its path.

Faults:

- `wheel_slip`: the floor is wet: `severity` * 0.12 m more deviation, and the delivery misses its place.
- `battery_aging`: inner resistance grows: `severity` * 0.9 V less. The state of charge does not show it; orders arrive.
- `scanner_dirty`: the score falls by `severity` * 0.2, and orders end off their place by 0.09 m at severity 1.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

LENGTH, WIDTH, SPEED = 24.0, 12.0, 1.5  # m, m, m/s
CHARGE_ORDERS = 40
VOLTAGE, VOLTS_PER_PERCENT = 48.0, 0.04
DEVIATION, DEVIATION_SPREAD, DEVIATION_USL = 0.05, 0.006, 0.12  # m
SLIP, AGED, DIRT, DIRT_OFF = 0.12, 0.9, 0.2, 0.09  # m, V, score, m: at severity 1


class Agv(Machine):
    """See the module."""

    KIND = "agv"
    PROTOCOL = "mqtt"
    DIALECTS = ("vda5050", "json", "sparkplug")
    ABOUT = "driverless vehicle (VDA 5050); wheels slip, scanners get dirty"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("x", "m", (-100.0, 100.0), "", "position on the map"),
        gauge("y", "m", (-100.0, 100.0), "", "position on the map"),
        gauge("theta", "rad", (-math.pi, math.pi), "", "heading"),
        gauge("vx", "m/s", (-3.0, 3.0), "", "speed in the vehicle's direction"),
        gauge("battery", "%", (0.0, 100.0), "", "state of charge"),
        gauge("battery_voltage", "V", (0.0, 60.0), "iid", "at rest before an order", spec=(46.8, None)),
        gauge("localization_score", "", (0.0, 1.0), "iid", "how well the scan fits the map", spec=(0.8, None)),
        gauge("deviation", "m", (0.0, 5.0), "iid", "off the path", spec=(None, DEVIATION_USL)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "wheel_slip": ("deviation",),
        "battery_aging": ("battery_voltage",),
        "scanner_dirty": ("localization_score", "deviation"),
    }
    HARMLESS = frozenset({"battery_aging"})

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        slip, aged, dirt = (active.get(k) for k in ("wheel_slip", "battery_aging", "scanner_dirty"))
        off = (SLIP * slip.severity if slip else 0.0) + (DIRT_OFF * dirt.severity if dirt else 0.0)
        share = np.clip((np.arange(ticks) - self.idle) / (ticks - self.idle), 0.0, 1.0)
        side = np.minimum((share * 4.0).astype(int), 3)
        corner = np.array([[0.0, 0.0], [LENGTH, 0.0], [LENGTH, WIDTH], [0.0, WIDTH], [0.0, 0.0]])
        along = (share * 4.0 - side)[:, None]
        at = corner[side] * (1.0 - along) + corner[side + 1] * along
        noise = rng.normal(0.0, 1.0, (4, ticks))
        moving = np.arange(ticks) >= self.idle
        charge = 95.0 - 60.0 * ((n - 1) % CHARGE_ORDERS + share) / CHARGE_ORDERS
        volts = VOLTAGE + rng.normal(0.0, 0.06) - (AGED * aged.severity if aged else 0.0)
        score = 0.92 + rng.normal(0.0, 0.006) - (DIRT * dirt.severity if dirt else 0.0)
        path = DEVIATION + rng.normal(0.0, DEVIATION_SPREAD) + off
        heading = np.array([0.0, math.pi / 2.0, math.pi, -math.pi / 2.0])[side]
        driving = np.where(moving, 1.0, np.nan)
        return Cycle(
            {
                "x": at[:, 0] + 0.005 * noise[0],
                "y": at[:, 1] + 0.005 * noise[1],
                "theta": heading,
                "vx": np.where(moving, SPEED, 0.0),
                "battery": np.round(charge, 1),
                "localization_score": driving * np.clip(score + 0.004 * noise[2], 0.0, 1.0),
                "deviation": driving * np.maximum(path + 0.002 * noise[3], 0.0),
            },
            [(0, "battery_voltage", float(volts))],
            {"deviation": float(path)},
            out_of_spec("deviation", float(path), 0.0, DEVIATION_USL, "m"),
        )
