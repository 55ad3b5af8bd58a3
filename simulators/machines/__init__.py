"""Simulated machines, one a file. A new one is a subclass of `Machine` in a file of its own, and a row here."""

from simulators.machines.base import Machine
from simulators.machines.cnc_mill import CncMill
from simulators.machines.printer import Printer
from simulators.machines.records import Context, Fault, FaultEvent, Part, Reading, Signal, Step
from simulators.machines.robot import Robot

MACHINES: dict[str, type[Machine]] = {kind.KIND: kind for kind in (CncMill, Robot, Printer)}

__all__ = ["MACHINES", "Context", "Fault", "FaultEvent", "Machine", "Part", "Reading", "Signal", "Step"]
