"""Which source each `[[action]]` uses: the checks that need the sources' tables and kinds."""

from collections.abc import Sequence
from typing import Any

from edge.actions.config import ActionConfig, BoundAction, SourceFacts, choose_source, validate
from edge.sources import load_kind
from fieldlab.config import Document
from fieldlab.errors import ConfigError


def bind_actions(
    document: Document, tables: tuple[dict[str, Any], ...], sources: Sequence[tuple[str, Any]]
) -> tuple[BoundAction, ...]:
    """Read the `[[action]]` tables.

    Args:
        document: the file.
        tables: as they were written.
        sources: kind and table of each `[[source]]`, in order.

    Raises:
        ConfigError: naming file, line and key.
    """
    if not tables:
        return ()
    actions = tuple(document.bind(ActionConfig, t, f"action[{i}]") for i, t in enumerate(tables))
    for key, message in validate(actions, tables):
        raise document.error(message, key)
    facts = tuple(_facts(kind, config) for kind, config in sources)
    bound = []
    for i, action in enumerate(actions):
        try:
            source = choose_source(action, f"action[{i}]", facts)
        except ConfigError as e:
            raise document.error(e.message, e.key) from None
        try:
            kind: Any = load_kind(sources[source][0])  # it can do commands: `choose_source` looked
            kind.validate_command(action.what)
        except ConfigError as e:
            raise document.error(e.message, f"action[{i}].{e.key}") from None
        bound.append(BoundAction(config=action, source=source))
    return tuple(bound)


def _facts(kind: str, config: Any) -> SourceFacts:
    machines = {getattr(config, "machine", "")} | {getattr(s, "machine", "") for s in getattr(config, "signal", ())}
    return SourceFacts(
        machines=frozenset(machines - {""}),
        commandable=hasattr(load_kind(kind), "validate_command"),
        secure=getattr(config, "security", "none") != "none",
    )
