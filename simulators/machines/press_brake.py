"""A press brake that bends flanges by air bending.

Model, with its sources:

- Springback of a bend of radius R in a sheet of thickness t, yield strength Y and modulus E is, for small ratios,
  3 R Y / (E t) of the bend's angle (F. J. Gardiner, Trans. ASME 79, 1957). With R = 6 mm, t = 4 mm, Y = 700 MPa,
  E = 210 GPa that is 1.35° of 90°; the program compensates the nominal, so a lot's yield strength shows in the angle.
- The bending force of a V die is proportional to Y t² L / V (DIN 8580 family, handbook formula of air bending).
- Yield strength differs from lot to lot (standard deviation 0.6 %, with a context) and within a lot (1 %).
- `oil_temperature` is a first-order lag of 25 parts.

Faults:

- `hard_lot`: the yield strength is `severity` * 35 % higher: more force, and more springback, so a larger angle.
- `die_wear`: the die's shoulders wear by `severity` * 0.09° of the angle a part. The force does not show it.
- `back_gauge_slip`: the sheet lies `severity` * 0.5 mm off: the flange is longer, nothing else changes.
"""

from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, gauge

SPRINGBACK = 3.0 * 6.0 * 700.0 / (210e3 * 4.0) * 90.0  # °
ANGLE, ANGLE_TOLERANCE, ANGLE_SPREAD = 90.0, 0.4, 0.07  # °
FLANGE, FLANGE_TOLERANCE, FLANGE_SPREAD = 40.0, 0.35, 0.06  # mm
FORCE = 120.0  # kN
WITHIN_LOT, BETWEEN_LOTS = 0.01, 0.006  # of the yield strength
HARDER, WORN, SLIPPED = 0.35, 0.09, 0.5  # of the yield strength; ° a part; mm: at severity 1


class PressBrake(Machine):
    """See the module."""

    KIND = "press_brake"
    PROTOCOL = "opcua"
    ABOUT = "press brake; springback follows the lot of material"
    SIGNALS = (
        STATE,
        PART_ID,
        gauge("bend_force", "kN", (0.0, 400.0), "iid", "force of the ram during the stroke"),
        gauge("punch_depth", "mm", (0.0, 50.0), "iid", "lowest position of the punch, once a part", target=18.0),
        gauge("oil_temperature", "°C", (0.0, 100.0), "autocorrelated", "hydraulic oil", spec=(None, 65.0)),
        gauge(
            "angle",
            "°",
            (0.0, 180.0),
            "iid",
            "measured by laser after springback, once a part",
            spec=(ANGLE - ANGLE_TOLERANCE, ANGLE + ANGLE_TOLERANCE),
            target=ANGLE,
        ),
        gauge(
            "flange_length",
            "mm",
            (0.0, 200.0),
            "iid",
            "measured once a part",
            spec=(FLANGE - FLANGE_TOLERANCE, FLANGE + FLANGE_TOLERANCE),
            target=FLANGE,
        ),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "hard_lot": ("bend_force", "angle"),
        "die_wear": ("angle",),
        "back_gauge_slip": ("flange_length",),
    }

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        hard, wear, slip = (active.get(k) for k in ("hard_lot", "die_wear", "back_gauge_slip"))
        harder = HARDER * hard.severity if hard else 0.0
        strength = 1.0 + rng.normal(0.0, WITHIN_LOT) + self.of_lot(n, BETWEEN_LOTS) + harder

        stroke = np.full(ticks, np.nan)
        stroke[self.idle :] = np.minimum(1.0, np.linspace(0.6, 1.4, ticks - self.idle))  # elastic, then it yields
        force = stroke * FORCE * strength + rng.normal(0.0, 0.5, ticks)
        oil = 44.0 + self.slow("oil", 1.5) + rng.normal(0.0, 0.1, ticks)
        depth = 18.0 + rng.normal(0.0, 0.004)
        angle = ANGLE + SPRINGBACK * (strength - 1.0) + rng.normal(0.0, ANGLE_SPREAD)
        angle += WORN * wear.severity * (wear.age + 1) if wear else 0.0
        flange = FLANGE + rng.normal(0.0, FLANGE_SPREAD) + (SLIPPED * slip.severity if slip else 0.0)
        seen = angle + rng.normal(0.0, 0.01), flange + rng.normal(0.0, 0.005)
        return Cycle(
            {"bend_force": force, "oil_temperature": oil},
            [
                (self.measured, "punch_depth", float(depth)),
                (self.measured, "angle", float(seen[0])),
                (self.measured, "flange_length", float(seen[1])),
            ],
            {"angle": float(angle), "flange_length": float(flange)},
            out_of_spec("angle", float(angle), ANGLE - ANGLE_TOLERANCE, ANGLE + ANGLE_TOLERANCE, "°")
            or out_of_spec("flange_length", float(flange), FLANGE - FLANGE_TOLERANCE, FLANGE + FLANGE_TOLERANCE, "mm"),
        )
