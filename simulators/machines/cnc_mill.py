"""A CNC mill that turns blanks into round spigots by circular milling.

Model, with its sources:

- `spindle_load` follows the cutting force, which grows with the chip's cross-section (O. Kienzle, VDI-Z 94, 1952);
  it is low while a part is loaded and ramps over the entry of the tool. A part's hardness adds a random level.
- Flank wear grows linearly with cutting time in its steady stage (ISO 8688-2, tool-life testing in milling). A worn
  edge recedes by VB * tan(clearance angle) on each side, so an outer diameter grows by twice that. Force and vibration
  grow with VB; the factors are this model's, of the usual order.
- Normal wear is compensated by the tool offset, so in control the diameter is normal and independent from part to part.
- `vibration` is a velocity, RMS, with the alarm limit of ISO 20816-3 as its specification.
- `coolant_temperature` warms towards a level with cutting and cools by Newton's law: a first-order lag of 25 cycles,
  plus the noise of the sensor. It is strongly autocorrelated on purpose.

Fault `tool_wear`: the edge wears by `severity` * 7.7 µm a part (0.6 standard deviations of the diameter), until the
tool is changed. At severity 1 parts are out of specification from about the tenth on.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, first_order, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal

TARGET, LSL, USL = 25.0, 24.97, 25.03  # mm
SPREAD = 0.005  # mm, standard deviation of the true diameter: Cp = 2
GAUGE = 0.0005  # mm, standard deviation of the measurement
CLEARANCE = math.radians(11.0)
WEAR = 0.0077  # mm of flank wear a part, at severity 1
FORCE_PER_WEAR = 1.5  # share of the spindle load a mm of flank wear
VIBRATION_PER_WEAR = 4.0  # share of the vibration a mm of flank wear
COOLANT_CYCLES = 25.0  # time constant


class CncMill(Machine):
    """See the module."""

    KIND = "cnc_mill"
    PROTOCOL = "opcua"
    ABOUT = "CNC mill; the tool wears and the diameter drifts"
    SIGNALS = (
        STATE,
        PART_ID,
        Signal(name="tool_id", kind="text", about="the tool in the spindle; changes at a repair of tool_wear"),
        Signal(
            name="spindle_load",
            unit="%",
            low=0.0,
            high=120.0,
            lsl=0.0,
            usl=95.0,
            per_part="iid",
            about="load of the spindle's drive",
        ),
        Signal(
            name="vibration",
            unit="mm/s",
            low=0.0,
            high=20.0,
            usl=4.5,
            per_part="iid",
            about="velocity at the spindle's bearing, RMS",
        ),
        Signal(
            name="coolant_temperature",
            unit="°C",
            low=0.0,
            high=80.0,
            usl=35.0,
            per_part="autocorrelated",
            about="coolant in the return line",
        ),
        Signal(
            name="diameter",
            unit="mm",
            low=24.5,
            high=25.5,
            lsl=LSL,
            usl=USL,
            target=TARGET,
            per_part="iid",
            about="measured by the touch probe, once a part, near the end of its cycle",
        ),
    )
    FAULTS = {"tool_wear": ("diameter", "spindle_load", "vibration")}  # noqa: RUF012  declared ClassVar in Machine
    _coolant = 26.0

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:
        ticks, rng = self.ticks, self.rng
        wear = active.get("tool_wear")
        worn = WEAR * wear.severity * (wear.age + 1) if wear else 0.0

        cutting = np.zeros(ticks)
        cutting[self.idle :] = 1.0
        cutting[self.idle] = 0.6  # the tool enters
        load = 4.0 + cutting * (48.0 * (1.0 + FORCE_PER_WEAR * worn) + rng.normal(0.0, 0.8))
        load += rng.normal(0.0, 0.6, ticks)
        vibration = (0.4 + cutting * (0.9 + rng.normal(0.0, 0.03))) * (1.0 + VIBRATION_PER_WEAR * worn)
        vibration += rng.normal(0.0, 0.04, ticks)

        phi = math.exp(-1.0 / (COOLANT_CYCLES * ticks))
        heat = 22.0 + 5.0 * cutting + rng.normal(0.0, 0.8) * math.sqrt(COOLANT_CYCLES)
        lagged = first_order(heat, self._coolant, phi)
        self._coolant = float(lagged[-1])
        coolant = lagged + rng.normal(0.0, 0.05, ticks)

        true = float(TARGET + rng.normal(0.0, SPREAD) + 2.0 * worn * math.tan(CLEARANCE))
        measured = true + float(rng.normal(0.0, GAUGE))
        events: list[tuple[int, str, float | str]] = [(self.measured, "diameter", measured)]
        tool = self.ended("tool_wear", n)
        if n == 1 or tool != self.ended("tool_wear", n - 1):
            events.append((0, "tool_id", f"T{tool + 1:02d}"))
        return Cycle(
            {
                "spindle_load": np.maximum(load, 0.0),
                "vibration": np.maximum(vibration, 0.0),
                "coolant_temperature": coolant,
            },
            events,
            {"diameter": true},
            out_of_spec("diameter", true, LSL, USL, "mm"),
        )
