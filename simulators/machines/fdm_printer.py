"""An FDM 3D printer of a farm, which speaks the dialect of its controller: OctoPrint, Moonraker or Bambu.

Model, with its sources: that of `printer.py` for flow and heaters, and

- `chamber_temperature`: a closed chamber, a first-order lag of 25 parts. Shrinkage that is hindered lifts corners: the
  lift grows as the chamber is colder (T.-M. Wang, J.-T. Xi, Y. Jin, Int. J. Adv. Manuf. Technol. 33, 2007).
- `motor_load`: load of the belt axis, as drivers with stall detection tell it. A step is lost where the load is above
  what the motor holds, and the layers above are shifted.
- `filament`: whether the sensor feels filament, 1 or 0, sent with each part.

Faults:

- `nozzle_clog`: deposits close the nozzle: flow falls by `severity` * 15 % * (1 - exp(-parts / 4)): thin walls.
- `layer_shift`: the belt's pulley binds: `severity` * 18 points more load, and layers are shifted by 0.3 mm.
- `warping`: the door is open: the chamber is `severity` * 12 K colder, and corners lift by 0.5 mm.
- `filament_out`: nothing is fed: the flow falls by `severity` * 90 %, and the sensor feels nothing.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, first_order, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal, gauge

WALL, WALL_LSL, WALL_USL = 0.45, 0.414, 0.486  # mm
NOZZLE, BED, CHAMBER = 210.0, 60.0, 45.0  # °C
NOZZLE_PHI = 0.3  # a sample
LAYERS = 20
CLOG, CLOG_PARTS = 0.15, 4.0
BINDING, SHIFT, SHIFT_USL = 18.0, 0.3, 0.1  # points, mm, mm
COLD, LIFT, LIFT_USL = 12.0, 0.5, 0.2  # K, mm, mm
EMPTY = 0.9  # share of the flow


class FdmPrinter(Machine):
    """See the module."""

    KIND = "fdm_printer"
    PROTOCOL = "mqtt"
    DIALECTS = ("json", "octoprint", "moonraker", "bambu", "sparkplug")
    ABOUT = "FDM printer of a farm; clogs, shifts, warps, runs empty"
    SIGNALS = (
        STATE,
        PART_ID,
        Signal(name="job", kind="text", about="the file that is printed; empty between two prints"),
        Signal(name="layer", kind="counter", low=0.0, high=float(LAYERS), about="the layer in work"),
        gauge("progress", "%", (0.0, 100.0), "", "of the print"),
        gauge("nozzle", "°C", (0.0, 300.0), "iid", "melt", spec=(200.0, 220.0), target=NOZZLE),
        gauge("bed", "°C", (0.0, 120.0), "autocorrelated", "heated bed", spec=(50.0, 70.0), target=BED),
        gauge("chamber", "°C", (0.0, 90.0), "autocorrelated", "closed chamber", spec=(38.0, None)),
        gauge("flow", "%", (0.0, 200.0), "iid", "filament moved, of what was commanded", spec=(92.0, 108.0)),
        gauge("motor_load", "%", (0.0, 100.0), "iid", "of the belt axis, while it prints", spec=(None, 60.0)),
        Signal(name="filament", kind="counter", low=0.0, high=1.0, about="1 while the sensor feels filament"),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "nozzle_clog": ("flow",),
        "layer_shift": ("motor_load",),
        "warping": ("chamber",),
        "filament_out": ("flow", "filament"),
    }
    _melt = 0.0

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is printed alike
        ticks, rng = self.ticks, self.rng
        clog, shift, warp, out = (active.get(k) for k in self.FAULTS)
        lost = clog.severity * CLOG * (1.0 - math.exp(-(clog.age + 1) / CLOG_PARTS)) if clog else 0.0
        lost = min(1.0, lost + (EMPTY * out.severity if out else 0.0))
        noise = rng.normal(0.0, 1.0, (6, ticks))
        printing = np.full(ticks, np.nan)
        printing[self.idle :] = 1.0

        moved = (100.0 + rng.normal(0.0, 0.6) + 0.5 * noise[0]) * (1.0 - lost)
        load = printing * (35.0 + rng.normal(0.0, 1.0) + noise[1] + (BINDING * shift.severity if shift else 0.0))
        melt = first_order(0.6 * noise[2], self._melt, NOZZLE_PHI)
        self._melt = float(melt[-1])
        chamber = CHAMBER + self.slow("chamber", 0.8) + 0.1 * noise[3] - (COLD * warp.severity if warp else 0.0)
        done = (np.arange(ticks) - self.idle + 1) / (ticks - self.idle)
        samples = {
            "progress": printing * np.round(np.clip(done, 0.0, 1.0) * 100.0),
            "nozzle": NOZZLE + melt + 0.1 * noise[4],
            "bed": BED + self.slow("bed", 0.2) + 0.05 * noise[5],
            "chamber": chamber,
            "flow": printing * np.maximum(moved, 0.0),
            "motor_load": load,
        }
        running = ticks - self.idle
        layers = {self.idle + (layer * running) // LAYERS: layer + 1 for layer in range(LAYERS)}
        events: list[tuple[int, str, float | str]] = [(tick, "layer", float(layer)) for tick, layer in layers.items()]
        events += [(self.idle, "job", "shaver-cap.gcode"), (ticks - 1, "job", "")]
        events.append((0, "filament", 0.0 if out else 1.0))

        wall = float(WALL * moved[self.idle :].mean() / 100.0 * (1.0 + rng.normal(0.0, 0.002)))
        true = {
            "wall_thickness": wall,
            "layer_shift": SHIFT * shift.severity if shift else 0.0,
            "corner_lift": LIFT * warp.severity if warp else 0.0,
        }
        why = out_of_spec("wall_thickness", wall, WALL_LSL, WALL_USL, "mm")
        why = why or out_of_spec("layer_shift", true["layer_shift"], 0.0, SHIFT_USL, "mm")
        return Cycle(samples, events, true, why or out_of_spec("corner_lift", true["corner_lift"], 0.0, LIFT_USL, "mm"))
