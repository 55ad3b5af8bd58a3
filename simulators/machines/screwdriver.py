"""A screwing station, tightening to a torque, that watches torque over angle.

Model, with its sources:

- Tightening torque is T = K F d, with the nut factor K = 0.2 of dry steel, so the clamp force is T / (K d) (VDI 2230;
  J. H. Bickford, "Introduction to the Design and Behavior of Bolted Joints"). After the head seats, the clamp force,
  and so the torque, grows linearly with the angle.
- The driver stops at its torque: `final_torque` is in control by itself, and what the joint does shows in
  `final_angle`.
- The station publishes the curve, `angle` and `torque`, `running_torque` (before the head seats), `final_torque` and
  `final_angle` (from seating on).

Faults:

- `stripped_thread`: the thread yields: `severity` * 40° more for the same torque, and a clamp force that is lower by 30
  %.
- `dry_thread`: friction is higher by `severity` * 30 %: more running torque, the final torque is reached earlier, and
  the clamp force is lower.
- `bit_wear`: the bit cams out: the final torque is lower by `severity` * 0.035 Nm a part.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

TORQUE, TORQUE_TOLERANCE, TORQUE_SPREAD = 2.5, 0.15, 0.02  # Nm
CLAMP_ANGLE, ANGLE_SPREAD = 95.0, 2.0  # °
RUNNING, RUNNING_SPREAD = 0.4, 0.01  # Nm
NUT_FACTOR, DIAMETER = 0.2, 0.004  # m
CLAMP_LSL, CLAMP_USL = 2.65, 3.65  # kN
YIELDED, LOST_CLAMP, DRIER, WORN = 40.0, 0.3, 0.3, 0.035  # °, share, share, Nm a part: at severity 1


class Screwdriver(Machine):
    """See the module."""

    KIND = "screwdriver"
    PROTOCOL = "opcua"
    ABOUT = "screwing station with torque-angle curves"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("angle", "°", (0.0, 3600.0), "", "of the bit, while it turns: the curve's axis"),
        gauge("torque", "Nm", (0.0, 10.0), "iid", "of the bit, while it turns: the curve"),
        gauge("running_torque", "Nm", (0.0, 10.0), "iid", "before the head seats, once a part", spec=(0.3, 0.5)),
        gauge(
            "final_torque",
            "Nm",
            (0.0, 10.0),
            "iid",
            "where the driver stopped, once a part",
            spec=(TORQUE - TORQUE_TOLERANCE, TORQUE + TORQUE_TOLERANCE),
            target=TORQUE,
        ),
        gauge("final_angle", "°", (0.0, 720.0), "iid", "from seating on, once a part", spec=(80.0, 110.0)),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "stripped_thread": ("final_angle",),
        "dry_thread": ("running_torque", "final_angle", "torque"),
        "bit_wear": ("final_torque", "torque"),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is made alike
        ticks, rng = self.ticks, self.rng
        strip, dry, bit = (active.get(k) for k in ("stripped_thread", "dry_thread", "bit_wear"))
        drier = DRIER * dry.severity if dry else 0.0
        final = TORQUE + rng.normal(0.0, TORQUE_SPREAD) - (WORN * bit.severity * (bit.age + 1) if bit else 0.0)
        running = (RUNNING + rng.normal(0.0, RUNNING_SPREAD)) * (1.0 + drier)
        turned = CLAMP_ANGLE + rng.normal(0.0, ANGLE_SPREAD) - CLAMP_ANGLE * drier / (1.0 + drier)
        turned += YIELDED * strip.severity if strip else 0.0

        steps = ticks - self.idle
        share = np.arange(1, steps + 1) / steps
        seated = share > 0.75  # the last quarter of the time is clamping
        rising = np.where(seated, (share - 0.75) / 0.25, 0.0)
        curve = running + (final - running) * rising + rng.normal(0.0, 0.005, steps)
        torque, angle = np.full(ticks, np.nan), np.full(ticks, np.nan)
        torque[self.idle :], angle[self.idle :] = np.maximum(curve, 0.0), 815.0 * share
        clamp = final / (NUT_FACTOR * (1.0 + drier) * DIAMETER) / 1e3
        clamp *= 1.0 - LOST_CLAMP * strip.severity if strip else 1.0
        return Cycle(
            {"angle": angle, "torque": torque},
            [
                (self.measured, "running_torque", float(running)),
                (self.measured, "final_torque", float(final)),
                (self.measured, "final_angle", float(turned)),
            ],
            {"clamp_force": float(clamp), "final_torque": float(final)},
            out_of_spec("clamp_force", float(clamp), CLAMP_LSL, CLAMP_USL, "kN")
            or out_of_spec("final_torque", float(final), TORQUE - TORQUE_TOLERANCE, TORQUE + TORQUE_TOLERANCE, "Nm"),
        )
