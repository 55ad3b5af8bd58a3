"""The formats that `format` may name: each is a module, imported only when it is configured."""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from edge.sources.base import SourceContext
from fieldlab.model import Guarantee, SignalInfo, SignalKey

if TYPE_CHECKING:  # config asks us for what a format makes of it
    from edge.sources.mqtt.config import MqttConfig
    from edge.sources.mqtt.dialect import Dialect

_MODULES = {
    "json": "edge.sources.mqtt.multi",
    "plain": "edge.sources.mqtt.plain",
    "octoprint": "edge.sources.mqtt.octoprint",
    "moonraker": "edge.sources.mqtt.moonraker",
    "bambu": "edge.sources.mqtt.bambu",
    "vda5050": "edge.sources.mqtt.vda5050",
    "sparkplug": "edge.sources.mqtt.sparkplug.format",
}


class Signals(Protocol):
    """The part of `Sink` that gives signals their numbers."""

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        """As in `Sink`."""
        ...

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        """As in `Sink`."""
        ...


class Format(Protocol):
    """What a module of a format exposes as `FORMAT`."""

    def filters(self, config: "MqttConfig") -> tuple[str, ...]:
        """What to subscribe to where the configuration has no `topics`."""
        ...

    def validate(self, config: "MqttConfig", context: SourceContext) -> None:
        """Refuse keys that make no sense with this format.

        Raises:
            ConfigError: with the key within the table.
        """
        ...

    def create(self, config: "MqttConfig", context: SourceContext, signals: Signals) -> "Dialect":
        """A dialect of a configuration that `validate` accepts."""
        ...


def known_formats() -> list[str]:
    """The names that `format` may have."""
    return list(_MODULES)


def load_format(name: str) -> Format:
    """The format called `name`, imported now.

    Raises:
        KeyError: if there is no such format.
    """
    found: Format = import_module(_MODULES[name]).FORMAT
    return found


def dialect_of(config: "MqttConfig", context: SourceContext, signals: Signals) -> "Dialect":
    """The dialect that a configuration asks for."""
    return load_format(config.format).create(config, context, signals)
