"""An FDM 3D printer that prints a thin-walled part.

Model, with its sources:

- `flow` is the filament that really moves, in percent of what was commanded. Melt through a nozzle obeys a law of
  Hagen-Poiseuille's form (A. Bellini, S. Güçeri, M. Bertoldi, "Liquefier dynamics in fused deposition", J. Manuf. Sci.
  Eng. 126, 2004): at the pressure that the drive can hold, a narrower nozzle passes less. The filament's diameter adds
  a random level a part.
- `nozzle_temperature` and `bed_temperature` are under control: a first-order lag driven by noise, fast for the nozzle
  (fractions of a part), slow for the bed (20 cycles), plus the noise of the sensor.
- The wall is as thick as the extruded volume makes it: its thickness is proportional to the mean flow over the part.

Fault `nozzle_clog`: deposits close the nozzle; flow falls by `severity` * 15 % * (1 - exp(-parts / 4)). At severity 1
walls are too thin from about the third part on.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, first_order, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal

WALL, WALL_LSL, WALL_USL = 0.45, 0.414, 0.486  # mm
CLOG, CLOG_PARTS = 0.15, 4.0
LAYERS = 20
NOZZLE, BED = 210.0, 60.0  # °C
NOZZLE_PHI = 0.3  # a sample
BED_CYCLES = 20.0


class Printer(Machine):
    """See the module."""

    KIND = "printer"
    PROTOCOL = "mqtt"
    ABOUT = "FDM 3D printer; the nozzle clogs and the flow falls"
    SIGNALS = (
        STATE,
        PART_ID,
        Signal(name="job", kind="text", about="the file that is printed"),
        Signal(
            name="layer", kind="counter", low=0.0, high=float(LAYERS), about="the layer in work, sent when it changes"
        ),
        Signal(
            name="nozzle_temperature",
            unit="°C",
            low=0.0,
            high=300.0,
            lsl=200.0,
            usl=220.0,
            target=NOZZLE,
            per_part="iid",
            about="melt temperature in the nozzle",
        ),
        Signal(
            name="bed_temperature",
            unit="°C",
            low=0.0,
            high=120.0,
            lsl=50.0,
            usl=70.0,
            target=BED,
            per_part="autocorrelated",
            about="heated bed",
        ),
        Signal(
            name="flow",
            unit="%",
            low=0.0,
            high=200.0,
            lsl=92.0,
            usl=108.0,
            target=100.0,
            per_part="iid",
            about="filament moved, of what was commanded; silent while a part is loaded",
        ),
    )
    FAULTS = {"nozzle_clog": ("flow",)}  # noqa: RUF012  declared ClassVar in Machine
    _nozzle = 0.0
    _bed = 0.0

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        clog = active.get("nozzle_clog")
        closed = clog.severity * CLOG * (1.0 - math.exp(-(clog.age + 1) / CLOG_PARTS)) if clog else 0.0

        true_flow = (100.0 + rng.normal(0.0, 0.6) + rng.normal(0.0, 0.5, ticks)) * (1.0 - min(closed, 1.0))
        flow = true_flow + rng.normal(0.0, 0.5, ticks)
        flow[: self.idle] = np.nan

        nozzle = first_order(rng.normal(0.0, 0.6, ticks), self._nozzle, NOZZLE_PHI)
        self._nozzle = float(nozzle[-1])
        phi = math.exp(-1.0 / (BED_CYCLES * ticks))
        bed = first_order(np.full(ticks, rng.normal(0.0, 0.3) * math.sqrt(BED_CYCLES)), self._bed, phi)
        self._bed = float(bed[-1])
        sensor = rng.normal(0.0, 0.1, (2, ticks))

        running = ticks - self.idle
        layer_at = {self.idle + (layer * running) // LAYERS: layer + 1 for layer in range(LAYERS)}
        events: list[tuple[int, str, float | str]] = [(tick, "layer", float(layer)) for tick, layer in layer_at.items()]
        if n == 1:
            events.append((0, "job", "shaver-cap.gcode"))

        mean_flow = float(true_flow[self.idle :].mean())
        wall = WALL * mean_flow / 100.0 * (1.0 + float(rng.normal(0.0, 0.002)))
        return Cycle(
            {"nozzle_temperature": NOZZLE + nozzle + sensor[0], "bed_temperature": BED + bed + sensor[1], "flow": flow},
            events,
            {"wall_thickness": wall},
            out_of_spec("wall_thickness", wall, WALL_LSL, WALL_USL, "mm"),
        )
