"""A station that presses a bush into a bore, and watches force over displacement.

Model, with its sources:

- The joint's pressure is proportional to the interference (Lamé's thick-walled cylinders), and the force to push a
  cylinder in is friction * pressure * the area already in: it grows linearly with the depth (DIN 7190-1).
- The station publishes the curve, `displacement` and `force` at each sample of the stroke, and what it takes from it:
  `entry_force` (the largest in the first quarter), `peak_force`, `end_position` (seated on the stop).

Faults:

- `loose_bore`: the bore is `severity` * 8 µm too large: the whole curve is lower. Where it begins and ends is as ever.
- `misalignment`: the bush tilts and wedges: `severity` * 800 N on top of the first quarter; the peak is as ever.
- `stop_wear`: the stop gives way by `severity` * 0.012 mm a part. The force does not show it.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

INTERFERENCE, INTERFERENCE_LSL, INTERFERENCE_USL, SPREAD = 30.0, 26.0, 34.0, 0.6  # µm
FORCE_PER_MICRON = 100.0  # N at full depth
DEPTH, DEPTH_TOLERANCE, DEPTH_SPREAD = 12.0, 0.06, 0.01  # mm
ENTRY_USL = 1100.0  # N
LOOSER, WEDGED, WORN = 8.0, 800.0, 0.012  # µm, N, mm a part: at severity 1


class PressFit(Machine):
    """See the module."""

    KIND = "press_fit"
    PROTOCOL = "opcua"
    ABOUT = "press-fit station with force-displacement curves"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("displacement", "mm", (0.0, 20.0), "", "of the ram, during the stroke: the curve's axis"),
        gauge("force", "N", (0.0, 10000.0), "iid", "of the ram, during the stroke: the curve"),
        gauge(
            "entry_force", "N", (0.0, 10000.0), "", "largest in the first quarter, once a part", spec=(None, ENTRY_USL)
        ),
        gauge("peak_force", "N", (0.0, 10000.0), "iid", "at the end of the stroke, once a part", spec=(2600.0, 3400.0)),
        gauge(
            "end_position",
            "mm",
            (0.0, 20.0),
            "iid",
            "where the bush sits, once a part",
            spec=(DEPTH - DEPTH_TOLERANCE, DEPTH + DEPTH_TOLERANCE),
            target=DEPTH,
        ),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "loose_bore": ("peak_force", "force", "entry_force"),
        "misalignment": ("entry_force", "force"),
        "stop_wear": ("end_position",),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is made alike
        ticks, rng = self.ticks, self.rng
        loose, tilt, wear = (active.get(k) for k in ("loose_bore", "misalignment", "stop_wear"))
        interference = INTERFERENCE + rng.normal(0.0, SPREAD) - (LOOSER * loose.severity if loose else 0.0)

        running = ticks - self.idle
        share = np.arange(1, running + 1) / running
        first = share <= max(0.25, 1.0 / running)
        curve = FORCE_PER_MICRON * interference * share + rng.normal(0.0, 8.0, running)
        peak = FORCE_PER_MICRON * interference + rng.normal(0.0, 8.0)
        if tilt:
            curve[first] += WEDGED * tilt.severity
        force, displacement = np.full(ticks, np.nan), np.full(ticks, np.nan)
        force[self.idle :], displacement[self.idle :] = np.maximum(curve, 0.0), DEPTH * share
        seated = DEPTH + rng.normal(0.0, DEPTH_SPREAD) + (WORN * wear.severity * (wear.age + 1) if wear else 0.0)
        entry = float(curve[first].max())
        why = out_of_spec("interference", float(interference), INTERFERENCE_LSL, INTERFERENCE_USL, "µm")
        why = why or out_of_spec("entry_force", entry, 0.0, ENTRY_USL, "N")
        return Cycle(
            {"displacement": displacement, "force": force},
            [
                (self.measured, "entry_force", entry),
                (self.measured, "peak_force", float(peak)),
                (self.measured, "end_position", float(seated)),
            ],
            {"interference": float(interference), "end_position": float(seated)},
            why or out_of_spec("end_position", float(seated), DEPTH - DEPTH_TOLERANCE, DEPTH + DEPTH_TOLERANCE, "mm"),
        )
