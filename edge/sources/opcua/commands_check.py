"""The lines of `fieldlab check` for actions: does each fit the server as it is now? Nothing is written or called."""

from collections.abc import Mapping

from asyncua.ua import uaerrors

from edge.actions.command import CallMethod, WriteNode
from edge.sources.base import CheckLine, SourceContext
from edge.sources.opcua.commands import prepare
from edge.sources.opcua.config import OpcuaConfig
from edge.sources.opcua.link import open_link, reason
from edge.sources.opcua.variants import NotPossibleError
from fieldlab.errors import FieldlabError


async def check_commands(
    config: OpcuaConfig, context: SourceContext, commands: Mapping[str, WriteNode | CallMethod]
) -> list[CheckLine]:
    """A line for each of `commands`, by its name, over a session of its own with the rights of the agent's user."""
    try:
        link = await open_link(config, context, lambda _: None, pin=False)
    except FieldlabError as e:
        return [CheckLine(level="fail", subject=name, text=str(e)) for name in commands]
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        return [CheckLine(level="fail", subject=name, text=reason(e, config)) for name in commands]
    lines = []
    try:
        for name, what in commands.items():
            try:
                ready = await prepare(link.session, what)
                lines.append(CheckLine(level="ok", subject=name, text=f"would {ready.text}"))
            except NotPossibleError as e:
                lines.append(CheckLine(level="fail", subject=name, text=str(e)))
            except (uaerrors.UaError, OSError, TimeoutError) as e:
                lines.append(CheckLine(level="fail", subject=name, text=reason(e, config)))
    finally:
        await link.close(keep_subscriptions=False, within=2.0)
    return lines
