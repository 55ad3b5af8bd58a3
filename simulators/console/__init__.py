"""The tester's console: what runs, seen live, and changed by hand, by keys or over HTTP."""

from simulators.console.control import Control, ControlError
from simulators.console.http import ControlServer
from simulators.console.screen import Screen

__all__ = ["Control", "ControlError", "ControlServer", "Screen"]
