"""The dialects of MQTT that machines speak; `json` is Fieldlab's own, in `mqtt_device`."""

from collections.abc import Sequence

from simulators.machines import Signal
from simulators.protocols.dialects.bambu import Bambu
from simulators.protocols.dialects.base import Dialect, Message
from simulators.protocols.dialects.moonraker import Moonraker
from simulators.protocols.dialects.octoprint import OctoPrint
from simulators.protocols.dialects.sparkplug import Sparkplug
from simulators.protocols.dialects.vda5050 import Vda5050


def dialect_of(name: str, place: str, signals: Sequence[Signal]) -> Dialect | None:
    """The dialect of a machine; None for `json`.

    Raises:
        KeyError: if there is no such dialect.
    """
    if name == "json":
        return None
    if name == "sparkplug":
        return Sparkplug(place, signals)
    kinds: dict[str, type[Dialect]] = {
        "octoprint": OctoPrint,
        "moonraker": Moonraker,
        "bambu": Bambu,
        "vda5050": Vda5050,
    }
    return kinds[name](place)


__all__ = ["Dialect", "Message", "dialect_of"]
