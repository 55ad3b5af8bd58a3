"""OPC UA: one subscription a server, decoded in columns, acknowledged after the commit."""

from collections.abc import Mapping
from typing import Any

import msgspec

from edge.actions.command import CallMethod, WriteNode
from edge.sources.base import CheckLine, Sink, Source, SourceContext
from edge.sources.opcua.check import check_source
from edge.sources.opcua.commands import validate_command
from edge.sources.opcua.commands_check import check_commands
from edge.sources.opcua.config import DeclaredSignal, OpcuaConfig, declared, read_password, validate
from edge.sources.opcua.polling import PollingSource
from edge.sources.opcua.security import parse_choice, read_user
from edge.sources.opcua.source import OpcuaSource


class _OpcuaKind:
    """The kind "opcua"; see `edge.sources.base.SourceKind`."""

    config: type[msgspec.Struct] = OpcuaConfig

    def create(self, config: Any, context: SourceContext, sink: Sink) -> Source:
        validate(config, context)
        parse_choice(config.security)
        read_password(config)
        read_user(config)
        return PollingSource(config, context, sink) if config.mode == "poll" else OpcuaSource(config, context, sink)

    async def check(self, config: Any, context: SourceContext) -> list[CheckLine]:
        validate(config, context)
        parse_choice(config.security)
        return await check_source(config, context)

    def validate_command(self, what: WriteNode | CallMethod) -> None:
        """Look at the addresses of an action; a `ConfigError` names the key within the `[[action]]`."""
        validate_command(what)

    async def check_commands(
        self, config: Any, context: SourceContext, commands: Mapping[str, WriteNode | CallMethod]
    ) -> list[CheckLine]:
        """Whether each command, by its name, fits the server as it is now. Nothing is written or called."""
        return await check_commands(config, context, commands)


KIND = _OpcuaKind()

__all__ = ["KIND", "DeclaredSignal", "OpcuaConfig", "declared"]
