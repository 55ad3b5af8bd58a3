"""A milking robot: a part is one milking of one cow.

Model, with its sources:

- Vacuum at the claw is 42 kPa and steady within 2 kPa (ISO 5707, milking machine installations).
- Milk flow rises, holds and falls over a milking (the flow curve of ISO 5707's terms); its level differs from cow to
  cow.
- Conductivity of healthy milk is 4 to 6 mS/cm at 25 °C, and rises with mastitis (J. Hamann, A. Zecconi, IDF Bulletin
  334, 1998).
- `attachment_time`: the arm finds four teats by camera; 40 s in the mean.
- `milk_temperature` is a first-order lag of 25 milkings behind the herd's and the day's level.

Faults:

- `mastitis`: conductivity is higher by `severity` * 1.6 mS/cm: the milk must be separated. Vacuum and flow are as ever.
- `vacuum_leak`: vacuum falls by `severity` * 5 kPa, the flow by `severity` * 15 %: the udder is not emptied.
- `camera_dirty`: attaching takes `severity` * 9 s more; the milk is good.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal, gauge

HERD = 60  # cows
VACUUM, LEAK = 42.0, 5.0  # kPa
FLOW, FLOW_SPREAD, FLOW_PER_LEAK = 3.0, 0.08, 0.15  # kg/min, kg/min, share
CONDUCTIVITY, SPREAD, CONDUCTIVITY_USL, MASTITIS = 5.0, 0.12, 5.9, 1.6  # mS/cm
ATTACHING, ATTACHING_SPREAD, DIRTY = 40.0, 2.0, 9.0  # s
MILKING = 6.0  # min at full flow
YIELD_LSL = 15.8  # kg


class MilkingRobot(Machine):
    """See the module."""

    KIND = "milking_robot"
    PROTOCOL = "mqtt"
    DIALECTS = ("json", "sparkplug")
    ABOUT = "milking robot; conductivity tells mastitis"
    SIGNALS = (
        STATE,
        PART_ID,
        Signal(name="cow_id", kind="text", about="who is milked"),
        gauge("vacuum", "kPa", (0.0, 100.0), "iid", "at the claw, while milking", spec=(38.0, 46.0), target=VACUUM),
        gauge("milk_flow", "kg/min", (0.0, 12.0), "iid", "while milking: the flow curve"),
        gauge("conductivity", "mS/cm", (0.0, 20.0), "iid", "of the milk", spec=(None, CONDUCTIVITY_USL)),
        gauge("milk_temperature", "°C", (0.0, 50.0), "autocorrelated", "of the milk"),
        gauge("attachment_time", "s", (0.0, 600.0), "iid", "for four teats, once a milking", spec=(None, 60.0)),
        gauge("yield", "kg", (0.0, 60.0), "iid", "once a milking", spec=(YIELD_LSL, None)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "mastitis": ("conductivity",),
        "vacuum_leak": ("vacuum", "milk_flow", "yield"),
        "camera_dirty": ("attachment_time",),
    }
    HARMLESS = frozenset({"camera_dirty"})

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        ill, leak, dirty = (active.get(k) for k in ("mastitis", "vacuum_leak", "camera_dirty"))
        steps = ticks - self.idle
        share = np.arange(1, steps + 1) / steps
        curve = np.interp(share, [0.0, 0.15, 0.7, 1.0], [0.3, 1.0, 1.0, 0.15])
        level = (FLOW + rng.normal(0.0, FLOW_SPREAD)) * (1.0 - (FLOW_PER_LEAK * leak.severity if leak else 0.0))
        vacuum, flow, conductivity, warm = (np.full(ticks, np.nan) for _ in range(4))
        noise = rng.normal(0.0, 1.0, (4, steps))
        vacuum[self.idle :] = VACUUM + rng.normal(0.0, 0.3) + 0.4 * noise[0] - (LEAK * leak.severity if leak else 0.0)
        flow[self.idle :] = np.maximum(curve * level + 0.04 * noise[1], 0.0)
        salt = CONDUCTIVITY + rng.normal(0.0, SPREAD) + (MASTITIS * ill.severity if ill else 0.0)
        conductivity[self.idle :] = salt + 0.05 * noise[2]
        warm[self.idle :] = 37.5 + self.slow("milk", 0.3)[self.idle :] + 0.05 * noise[3]
        attaching = ATTACHING + rng.normal(0.0, ATTACHING_SPREAD) + (DIRTY * dirty.severity if dirty else 0.0)
        milked = MILKING * level
        cow = int(np.random.default_rng(n).integers(HERD)) + 1  # of who comes, not of the noise
        return Cycle(
            {"vacuum": vacuum, "milk_flow": flow, "conductivity": conductivity, "milk_temperature": warm},
            [
                (0, "cow_id", f"NL-{cow:04d}"),
                (self.measured, "attachment_time", float(attaching)),
                (self.measured, "yield", float(milked + rng.normal(0.0, 0.05))),
            ],
            {"conductivity": float(salt), "yield": float(milked)},
            out_of_spec("conductivity", float(salt), 0.0, CONDUCTIVITY_USL, "mS/cm")
            or out_of_spec("yield", float(milked), YIELD_LSL, 60.0, "kg"),
        )
