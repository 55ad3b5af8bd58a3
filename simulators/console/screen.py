"""The console in a terminal: plain ANSI, four times a second, and keys.

j k   choose a machine         1 … 9  inject its n-th fault, for 15 parts      r  repair it
space pause, go on             + -    twice as fast, half as fast              Enter  end production
"""

import asyncio
import contextlib
import math
import os
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any, TextIO

from simulators.console.control import Control, ControlError

_PARTS = 15  # that a fault by hand lasts
_HELP = "j k choose · 1-9 inject · r repair · space pause · + - speed · Enter end"


class Screen:
    """Draws a console, and does what keys say.

    Args:
        control: what to show and command.
        title: of the scenario.
        out: the terminal.
    """

    def __init__(self, control: Control, title: str, out: TextIO) -> None:
        self._control, self._title, self._out = control, title, out
        self._chosen = 0
        self._said = ""

    def press(self, key: str) -> bool:
        """Do what a key says; False if it is one that ends production."""
        machines = self._control.status()["machines"]
        if key in ("\r", "\n", "q"):
            return False
        if not machines:
            return True
        chosen = machines[min(self._chosen, len(machines) - 1)]
        try:
            if key in "jk":
                self._chosen = (self._chosen + (1 if key == "j" else -1)) % len(machines)
            elif key == " ":
                self._pause()
            elif key in "+-":
                self._faster(2.0 if key == "+" else 0.5)
            elif key == "r":
                ended = self._control.repair(chosen["name"])["ended"]
                self._said = f"{chosen['name']}: {', '.join(ended) or 'nothing'} ends with the next part"
            elif key.isdigit() and 0 < int(key) <= len(chosen["possible"]):
                done = self._control.inject(chosen["name"], chosen["possible"][int(key) - 1], parts=_PARTS)
                self._said = f"{done['machine']}: {done['kind']} from {done['first_part']} on, for {_PARTS} parts"
        except ControlError as e:
            self._said = str(e)
        return True

    def frame(self, columns: int, rows: int) -> list[str]:
        """The lines of the screen, at most `rows` of at most `columns` characters."""
        status = self._control.status()
        pace = "as fast as it can" if math.isinf(status["speed"]) else f"{status['speed']:g} s a second"
        pace = "paused" if status["paused"] else pace
        lines = [f"{self._title}   {status['seconds']:.1f} s   {pace}", ""]
        machines = status["machines"]
        first = max(0, min(self._chosen - (rows - 6) // 2, len(machines) - (rows - 5)))
        for i, machine in enumerate(machines[first : first + max(1, rows - 5)], first):
            mark = ">" if i == self._chosen else " "
            faults = ", ".join(machine["faults"])
            lines.append(
                f"{mark} {machine['name']:<12} {machine['parts']:>6} parts {machine['bad']:>4} bad  "
                f"{'! ' + faults if faults else 'ok':<24} {_values(machine['values'])}"
            )
        chosen = machines[self._chosen]["possible"] if machines else []
        lines += ["", "  ".join(f"{n} {kind}" for n, kind in enumerate(chosen, 1)), self._said or _HELP]
        return [line[:columns] for line in lines[:rows]]

    async def run(self, end: asyncio.Event) -> None:
        """Draw and listen until `end`; a key that ends production sets it."""
        loop = asyncio.get_running_loop()
        handle = sys.stdin.fileno()

        def read() -> None:
            for key in os.read(handle, 64).decode("utf-8", "ignore"):
                if not self.press(key):
                    end.set()

        with _terminal(handle, self._out):
            loop.add_reader(handle, read)
            try:
                while not end.is_set():
                    size = shutil.get_terminal_size()
                    drawn = "\r\n".join(f"{line}\x1b[K" for line in self.frame(size.columns, size.lines))
                    self._out.write(f"\x1b[H{drawn}\x1b[J")
                    self._out.flush()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(end.wait(), 0.25)
            finally:
                loop.remove_reader(handle)

    def _pause(self) -> None:
        if self._control.status()["paused"]:
            self._control.resume()
        else:
            self._control.pause()

    def _faster(self, factor: float) -> None:
        speed = self._control.status()["speed"]
        self._control.speed(64.0 if math.isinf(speed) else speed * factor)


def _values(values: dict[str, Any]) -> str:
    shown = [f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float)]
    return "  ".join(shown[:4])


@contextlib.contextmanager
def _terminal(handle: int, out: TextIO) -> Iterator[None]:
    """Keys one by one and unseen, on a screen of its own; as it was afterwards."""
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle)
    out.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        out.write("\x1b[?25h\x1b[?1049l")
        out.flush()
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
