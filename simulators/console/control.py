"""What a tester may do to machines that run: break one, repair it, pause, change the speed."""

import difflib
from typing import Any

from simulators.machines import Machine
from simulators.runner import Runner


class ControlError(Exception):
    """It cannot be done; the text says why, and what could be."""


class Control:
    """Commands on a runner; on its event loop.

    Args:
        runner: whose `produce` runs, or will.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def status(self) -> dict[str, Any]:
        """Speed, pause, simulated seconds, and of each machine: parts, bad ones, faults in force, last values."""
        runner = self._runner
        return {
            "speed": runner.pace.speed,
            "paused": runner.pace.paused,
            "seconds": runner.reached() / 1e9,
            "machines": [self._machine(machine) for machine in runner.machines],
        }

    def inject(self, machine: str, kind: str, *, severity: float = 1.0, parts: int | None = None) -> dict[str, Any]:
        """Break a machine, from its next part on.

        Args:
            machine: its name.
            kind: one of its faults.
            severity: 1 is the size that the machine's file describes.
            parts: how many parts until it is repaired; None for never.

        Raises:
            ControlError: if there is no such machine or fault, or that one is in force already.
        """
        found = self._find(machine)
        try:
            fault = found.inject(kind, severity=severity, parts=parts)
        except ValueError as e:
            raise ControlError(str(e)) from None
        return {"machine": machine, "kind": kind, "first_part": found.part_id(fault.start_part), "severity": severity}

    def repair(self, machine: str) -> dict[str, Any]:
        """End every fault of a machine, with its next part.

        Raises:
            ControlError: if there is no such machine.
        """
        return {"machine": machine, "ended": self._find(machine).repair()}

    def pause(self) -> None:
        """Let simulated time stand still."""
        self._runner.pace.pause(self._runner.reached())

    def resume(self) -> None:
        """Let it go on."""
        self._runner.pace.resume()

    def speed(self, speed: float) -> None:
        """Change the speed: simulated seconds a second.

        Raises:
            ControlError: if it is not above 0.
        """
        try:
            self._runner.pace.set_speed(speed, self._runner.reached())
        except ValueError as e:
            raise ControlError(str(e)) from None

    def _find(self, name: str) -> Machine:
        names = {machine.name: machine for machine in self._runner.machines}
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names) or 'none yet'}"
            raise ControlError(f"no machine `{name}`; {hint}")
        return names[name]

    def _machine(self, machine: Machine) -> dict[str, Any]:
        latest = self._runner.latest.get(machine.name, {})
        parts, bad = self._runner.made.get(machine.name, (0, 0))
        return {
            "name": machine.name,
            "kind": machine.KIND,
            "parts": parts,
            "bad": bad,
            "faults": list(machine.active(parts + 1)),
            "possible": list(machine.FAULTS),
            "values": {signal: reading.value for signal, reading in latest.items()},
        }
