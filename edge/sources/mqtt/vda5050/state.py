"""The fields of a VDA 5050 state: which signals they are.

Source: github.com/VDA5050/VDA5050, json_schemas (state, visualization, factsheet), 2.0 and 2.1; what 3.0 renamed is
found by either name.
"""

from typing import Any, Final

from edge.sources.mqtt.device import Quantity
from edge.sources.mqtt.scalars import table

_YES_NO: Final = {"0": "no", "1": "yes"}
_MODES: Final = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL", "SERVICE", "TEACHIN", "STARTUP", "INTERVENED")
_STOPS: Final = ("NONE", "AUTOACK", "MANUAL", "REMOTE")
LEVELS: Final = ("NONE", "WARNING", "URGENT", "CRITICAL", "FATAL")

Path = tuple[str, ...]


def _of(words: tuple[str, ...]) -> dict[str, str]:
    return {str(i): word for i, word in enumerate(words)}


NUMBERS: Final[tuple[tuple[tuple[Path, ...], Quantity], ...]] = (  # where it may stand → signal
    ((("agvPosition", "x"), ("mobileRobotPosition", "x")), Quantity("x", "m")),
    ((("agvPosition", "y"), ("mobileRobotPosition", "y")), Quantity("y", "m")),
    ((("agvPosition", "theta"), ("mobileRobotPosition", "theta")), Quantity("theta", "rad")),
    (
        (("agvPosition", "positionInitialized"), ("mobileRobotPosition", "localized")),
        Quantity("localized", "", "state", _YES_NO),
    ),
    (
        (("agvPosition", "localizationScore"), ("mobileRobotPosition", "localizationScore")),
        Quantity("localization_score"),
    ),
    ((("agvPosition", "deviationRange"), ("mobileRobotPosition", "deviationRange")), Quantity("deviation", "m")),
    ((("velocity", "vx"),), Quantity("vx", "m/s")),
    ((("velocity", "vy"),), Quantity("vy", "m/s")),
    ((("velocity", "omega"),), Quantity("omega", "rad/s")),
    ((("batteryState", "batteryCharge"), ("powerSupply", "stateOfCharge")), Quantity("battery", "%")),
    ((("batteryState", "batteryVoltage"), ("powerSupply", "batteryVoltage")), Quantity("battery_voltage", "V")),
    ((("batteryState", "batteryCurrent"), ("powerSupply", "batteryCurrent")), Quantity("battery_current", "A")),
    ((("batteryState", "batteryHealth"), ("powerSupply", "batteryHealth")), Quantity("battery_health", "%")),
    ((("batteryState", "reach"),), Quantity("reach", "m")),
    ((("batteryState", "charging"), ("powerSupply", "charging")), Quantity("charging", "", "state", _YES_NO)),
    ((("driving",),), Quantity("driving", "", "state", _YES_NO)),
    ((("paused",),), Quantity("paused", "", "state", _YES_NO)),
    ((("distanceSinceLastNode",),), Quantity("distance_since_last_node", "m")),
    ((("orderUpdateId",),), Quantity("order_update", "", "counter")),
    ((("lastNodeSequenceId",),), Quantity("last_node_sequence", "", "counter")),
    ((("safetyState", "fieldViolation"),), Quantity("field_violation", "", "state", _YES_NO)),
)
TEXTS: Final[tuple[tuple[tuple[Path, ...], Quantity], ...]] = (
    ((("agvPosition", "mapId"), ("mobileRobotPosition", "mapId")), Quantity("map", "", "text")),
    ((("lastNodeId",),), Quantity("last_node", "", "text")),
    ((("orderId",),), Quantity("order_id", "", "text")),
)
WORDS: Final[tuple[tuple[tuple[Path, ...], Quantity, tuple[str, ...]], ...]] = (  # a word of several → a state
    ((("operatingMode",),), Quantity("operating_mode", "", "state", _of(_MODES)), _MODES),
    (
        (("safetyState", "eStop"), ("safetyState", "activeEmergencyStop")),
        Quantity("e_stop", "", "state", _of(_STOPS)),
        _STOPS,
    ),
)
FACTS_TEXT: Final[tuple[tuple[Path, Quantity], ...]] = (
    (("typeSpecification", "seriesName"), Quantity("series", "", "text")),
    (("typeSpecification", "agvKinematic"), Quantity("kinematic", "", "text")),
    (("typeSpecification", "agvClass"), Quantity("class", "", "text")),
)
FACTS_NUMBER: Final[tuple[tuple[Path, Quantity], ...]] = (
    (("typeSpecification", "maxLoadMass"), Quantity("max_load", "kg")),
    (("physicalParameters", "speedMax"), Quantity("max_speed", "m/s")),
)
STATES: Final = ("idle", "driving", "working", "paused", "charging", "manual", "stopped")
STATE = Quantity("state", "", "state", _of(STATES))
ORDER = Quantity("order", "", "text")  # the order while it is worked on, else empty
ERROR = Quantity("error", "", "text")
ERRORS = Quantity("errors")
ERROR_LEVEL = Quantity("error_level", "", "state", _of(LEVELS))
LOADS = Quantity("loads")
LOAD_WEIGHT = Quantity("load_weight", "kg")
LOAD = Quantity("load", "", "text")  # the ids of all loads


def at(document: dict[str, Any], path: Path) -> Any:
    """What stands at a path, or None."""
    found: Any = document
    for key in path:
        found = table(found).get(key)
    return found


def first(document: dict[str, Any], paths: tuple[Path, ...]) -> Any:
    """What stands at the first of several paths that holds something, or None."""
    return next((found for path in paths if (found := at(document, path)) is not None), None)


def working_on(document: dict[str, Any]) -> str | None:
    """The order that is worked on: empty when nothing of it is left; None if the state does not say.

    An order is done when no node and no edge is left to reach, and no action is waiting or running (VDA 5050, Order
    handling); the vehicle keeps its id until the next.
    """
    order = document.get("orderId")
    if not isinstance(order, str):
        return None
    left = any(isinstance(document.get(key), list) and document[key] for key in ("nodeStates", "edgeStates"))
    actions = document.get("actionStates")
    for each in actions if isinstance(actions, list) else ():
        left = left or table(each).get("actionStatus") not in ("FINISHED", "FAILED")
    return order if left else ""


def state_of(document: dict[str, Any], order: str | None) -> str | None:
    """One word for what a vehicle does, out of several fields; None if the message is no state.

    Args:
        document: the message.
        order: what it works on; see `working_on`.
    """
    if not isinstance(document.get("driving"), bool):
        return None
    stop = first(document, (("safetyState", "eStop"), ("safetyState", "activeEmergencyStop")))
    errors, mode = document.get("errors"), document.get("operatingMode")
    if stop not in (None, "NONE") or (isinstance(errors, list) and level_of(errors) == len(LEVELS) - 1):
        return "stopped"
    if mode not in (None, "AUTOMATIC", "SEMIAUTOMATIC"):
        return "manual"
    if document.get("paused") is True:
        return "paused"
    if document["driving"]:
        return "driving"
    charging = first(document, (("batteryState", "charging"), ("powerSupply", "charging")))
    return "working" if order else "charging" if charging is True else "idle"


def level_of(errors: list[Any]) -> int:
    """The worst level of errors, as an index into `LEVELS`; an unknown one is FATAL."""
    worst = 0
    for each in errors:
        level = table(each).get("errorLevel")
        worst = max(worst, LEVELS.index(level) if level in LEVELS else len(LEVELS) - 1)
    return worst


def words_of(errors: list[Any]) -> str:
    """Errors in words: types and descriptions, at most 1,000 characters."""
    words = []
    for each in errors:
        kind, why = table(each).get("errorType"), table(each).get("errorDescription")
        words.append(": ".join(str(word) for word in (kind, why) if isinstance(word, str) and word))
    return "; ".join(word for word in words if word)[:1000]
