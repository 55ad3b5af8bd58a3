"""A six-axis robot that picks a part and places it.

Model, with its sources:

- A joint's current is its torque divided by the motor's torque constant, and torque is inertia times acceleration plus
  friction and gravity (M. W. Spong, S. Hutchinson, M. Vidyasagar, "Robot Modeling and Control"). A move is a trapezoid
  of speed: accelerate, cruise, brake; the current's magnitude follows. A part's weight adds a random level.
- A joint's temperature is a thermal RC: heated by the copper loss i²R, cooled by Newton's law, time constant 40 cycles.
- `position_error` is the signed deviation of the placed part along the approach axis (pose accuracy and repeatability,
  ISO 9283), measured once a part; in control it is normal and independent. `cycle_time` is the time from grip to
  release.

Fault `gripper_slip`: the part slides in the fingers by `severity` * (0.05 mm + |N(0, 0.02 mm)|) and the robot grips
again, which costs `severity` * 6 % of the moving time. No joint feels it. At severity 1 more than half of the parts are
out of specification.

Fault `joint_wear`: the bearing of joint 3 rubs and has play: `severity` * 0.06 A a part more current in that joint, the
copper loss of that as heat, and `severity` * 0.009 mm a part of position error. The other joints and the time do not
show it.
"""

import math
from collections.abc import Mapping

import numpy as np

from simulators.machines.base import Machine, first_order, out_of_spec
from simulators.machines.records import PART_ID, STATE, Active, Cycle, Signal

LIMIT = 0.06  # mm
SPREAD = 0.01  # mm, standard deviation of the true position error: Cp = 2
GAUGE = 0.001  # mm, standard deviation of the measurement
SLIP, SLIP_SPREAD = 0.05, 0.02  # mm, at severity 1
REGRIP = 0.06  # share of the cycle time, at severity 1
HOLDING = np.array([1.1, 3.0, 2.2, 0.7, 0.6, 0.3])  # A, friction and gravity
MOVING = np.array([2.8, 2.4, 1.9, 0.9, 0.8, 0.5])  # A, accelerating
RUBBING, PLAY = 0.06, 0.009  # A and mm a part, at severity 1
THERMAL_CYCLES = 40.0  # time constant
AMBIENT = 24.0  # °C
KELVIN_PER_AMPERE2 = 1.1  # steady rise by the copper loss


def _joint_signals() -> tuple[Signal, ...]:
    currents = tuple(
        Signal(
            name=f"joint_current_{j}",
            unit="A",
            low=0.0,
            high=20.0,
            per_part="iid",
            about=f"motor current of joint {j}, magnitude",
        )
        for j in range(1, 7)
    )
    temperatures = tuple(
        Signal(
            name=f"joint_temperature_{j}",
            unit="°C",
            low=0.0,
            high=120.0,
            usl=90.0,
            per_part="autocorrelated",
            about=f"winding temperature of joint {j}",
        )
        for j in range(1, 7)
    )
    return currents + temperatures


class Robot(Machine):
    """See the module."""

    KIND = "robot"
    PROTOCOL = "opcua"
    ABOUT = "six-axis robot that picks and places; the gripper slips"
    SIGNALS = (
        STATE,
        PART_ID,
        *_joint_signals(),
        Signal(
            name="cycle_time",
            unit="s",
            low=0.0,
            high=600.0,
            per_part="iid",
            about="from grip to release, once a part",
        ),
        Signal(
            name="position_error",
            unit="mm",
            low=-1.0,
            high=1.0,
            lsl=-LIMIT,
            usl=LIMIT,
            target=0.0,
            per_part="iid",
            about="placed part along the approach axis, measured once a part",
        ),
    )
    FAULTS = {  # noqa: RUF012  declared ClassVar in Machine
        "gripper_slip": ("position_error", "cycle_time"),
        "joint_wear": ("joint_current_3", "joint_temperature_3", "position_error"),
    }
    _temperature = AMBIENT + KELVIN_PER_AMPERE2 * (HOLDING + 0.5 * MOVING) ** 2

    def _cycle(self, n: int, active: Mapping[str, Active]) -> Cycle:  # noqa: ARG002  every part is made alike
        ticks, rng = self.ticks, self.rng
        slip, wear = active.get("gripper_slip"), active.get("joint_wear")
        slid = 0.0
        if slip:
            slid = slip.severity * (SLIP + abs(float(self.fault_rng.normal(0.0, SLIP_SPREAD))))

        running = ticks - self.idle
        ramp = max(1, running // 4)
        speed_change = np.zeros(ticks)
        speed_change[self.idle : self.idle + ramp] = 1.0
        speed_change[ticks - ramp :] = 0.8
        speed_change[self.idle + ramp : ticks - ramp] = 0.35
        payload = rng.normal(0.0, 0.02, 6)
        noise = rng.normal(0.0, 0.05, (6, ticks))
        current = np.abs(HOLDING[:, None] * (1.0 + payload[:, None]) + MOVING[:, None] * speed_change + noise)

        phi = math.exp(-1.0 / (THERMAL_CYCLES * ticks))
        drift = rng.normal(0.0, 0.5, 6) * math.sqrt(THERMAL_CYCLES)  # draught and grease, slow
        sensor = rng.normal(0.0, 0.05, (6, ticks))
        samples = {f"joint_current_{j + 1}": current[j] for j in range(6)}
        last = np.empty(6)
        for j in range(6):
            warm = AMBIENT + KELVIN_PER_AMPERE2 * current[j] ** 2 + drift[j]
            lagged = first_order(warm, float(self._temperature[j]), phi)
            last[j] = lagged[-1]
            samples[f"joint_temperature_{j + 1}"] = lagged + sensor[j]
        self._temperature = last
        if wear:
            rub = RUBBING * wear.severity * (wear.age + 1)
            samples["joint_temperature_3"] += KELVIN_PER_AMPERE2 * (2.0 * current[2].mean() + rub) * rub
            samples["joint_current_3"] = current[2] + rub
            slid += PLAY * wear.severity * (wear.age + 1)

        true = float(rng.normal(0.0, SPREAD)) + slid
        measured = true + float(rng.normal(0.0, GAUGE))
        nominal = running * self.period / 1e9
        grip_to_release = 0.95 * nominal * (1.0 + float(rng.normal(0.0, 0.006)))
        if slip:
            grip_to_release += REGRIP * slip.severity * nominal
        return Cycle(
            samples,
            [(self.measured, "cycle_time", grip_to_release), (self.measured, "position_error", measured)],
            {"position_error": true},
            out_of_spec("position_error", true, -LIMIT, LIMIT, "mm"),
        )
