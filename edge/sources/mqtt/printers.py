"""The words of 3D printers: the same names, units and states, whichever firmware speaks."""

from typing import Final

from edge.sources.mqtt.device import Quantity

STATES: Final = ("offline", "idle", "preparing", "printing", "paused", "finished", "cancelled", "failed", "error")
RUNNING: Final = frozenset(("preparing", "printing", "paused"))  # while these last, a part is being made

STATE = Quantity("state", "", "state", {str(i): word for i, word in enumerate(STATES)})
STATE_TEXT = Quantity("state_text", "", "text")  # as the printer says it
JOB = Quantity("job", "", "text")  # the file while it is printed, else empty: `[[part]] job = "job"` makes parts of it
FILE = Quantity("file", "", "text")
PROGRESS = Quantity("progress", "%")
LAYER = Quantity("layer", "", "counter")
LAYERS = Quantity("total_layers")
ELAPSED = Quantity("elapsed", "s", "counter")
REMAINING = Quantity("remaining", "s")
Z = Quantity("z", "mm")
BED = Quantity("bed", "°C")
BED_TARGET = Quantity("bed_target", "°C")
CHAMBER = Quantity("chamber", "°C")
CHAMBER_TARGET = Quantity("chamber_target", "°C")
FAN = Quantity("fan", "%")  # the one that cools the part
FAN_RPM = Quantity("fan_rpm", "rpm")
SPEED = Quantity("speed", "mm/s")
SPEED_FACTOR = Quantity("speed_factor", "%")
FLOW_FACTOR = Quantity("flow_factor", "%")
ERROR = Quantity("error", "", "text")  # empty: none
ERROR_CODE = Quantity("error_code")  # 0: none


def state_number(word: str) -> float:
    """The number of a state."""
    return float(STATES.index(word))


def of_tool(tool: int, name: str, unit: str = "°C") -> Quantity:
    """A quantity of a tool: the first has the plain name, the others `name[1]` and up."""
    return Quantity(name if tool == 0 else f"{name}[{tool}]", unit)


def job_of(file: str | None, state: str) -> str:
    """The job: the file while a part of it is made, else empty."""
    return (file or "").rsplit("/", 1)[-1] if state in RUNNING else ""
