"""The lines of `fieldlab check` for actions. Nothing is written and nothing is called."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edge.actions.config import BoundAction
from edge.sources import load_kind
from edge.sources.base import CheckLine, SourceContext


async def check_actions(
    actions: Sequence[BoundAction], sources: Sequence[tuple[str, Any]], context: Callable[[int], SourceContext]
) -> list[CheckLine]:
    """Whether what each action would do is there, permitted, and of the right type."""
    lines: list[CheckLine] = []
    for index in sorted({action.source for action in actions}):
        kind, config = sources[index]
        mine = {f"action {a.config.name}": a for a in actions if a.source == index}
        able: Any = load_kind(kind)  # it can do commands: the configuration was read
        found = await able.check_commands(config, context(index), {name: a.config.what for name, a in mine.items()})
        lines += [_with_manner(line, mine[line.subject]) for line in found]
    return lines


def _with_manner(line: CheckLine, action: BoundAction) -> CheckLine:
    config = action.config
    how = "dry run: it changes nothing" if config.dry_run else f"at most {config.limit}"
    data = {"action": config.name, "dry_run": config.dry_run, "limit": config.limit, "max_age": float(config.max_age)}
    text = f"{line.text}; {how}" if line.level == "ok" else line.text
    if config.allow_insecure and line.level == "ok":
        return msgspec.structs.replace(line, level="warn", text=f"{text}; the session may be unsigned", data=data)
    return msgspec.structs.replace(line, text=text, data=data)
