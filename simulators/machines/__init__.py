"""Simulated machines, one a file. A new one is a subclass of `Machine` in a file of its own, and a row here."""

from simulators.machines.agv import Agv
from simulators.machines.autoclave import Autoclave
from simulators.machines.base import Machine
from simulators.machines.cnc_mill import CncMill
from simulators.machines.composite_welder import CompositeWelder
from simulators.machines.fdm_printer import FdmPrinter
from simulators.machines.field_station import FieldStation
from simulators.machines.filling_cell import FillingCell
from simulators.machines.greenhouse import Greenhouse
from simulators.machines.laser_cutter import LaserCutter
from simulators.machines.milking_robot import MilkingRobot
from simulators.machines.press_brake import PressBrake
from simulators.machines.press_fit import PressFit
from simulators.machines.printer import Printer
from simulators.machines.records import Context, Fault, FaultEvent, Part, Reading, Signal, Step
from simulators.machines.robot import Robot
from simulators.machines.screwdriver import Screwdriver
from simulators.machines.shaver_line import ShaverAssembly, ShaverForm, ShaverStamp, ShaverTest

_KINDS: tuple[type[Machine], ...] = (
    CncMill,
    Robot,
    Printer,
    FdmPrinter,
    LaserCutter,
    PressBrake,
    PressFit,
    Screwdriver,
    ShaverStamp,
    ShaverForm,
    ShaverAssembly,
    ShaverTest,
    CompositeWelder,
    Autoclave,
    MilkingRobot,
    Greenhouse,
    FieldStation,
    Agv,
    FillingCell,
)
MACHINES: dict[str, type[Machine]] = {kind.KIND: kind for kind in _KINDS}

__all__ = ["MACHINES", "Context", "Fault", "FaultEvent", "Machine", "Part", "Reading", "Signal", "Step"]
