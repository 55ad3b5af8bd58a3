"""Preflight: everything that an agent would need, tried without disturbing a running one."""

from fnmatch import fnmatchcase

from edge.config import AgentConfig
from edge.sources import load_kind as load_source
from edge.sources.base import CheckLine
from ingest.stores import load_kind as load_store


async def check(config: AgentConfig) -> list[CheckLine]:
    """Every line of `fieldlab check`, sources first."""
    lines: list[CheckLine] = []
    for index, source in enumerate(config.sources):
        lines += await load_source(source.kind).check(source.config, config.source_context(index))
    for index, store in enumerate(config.stores):
        lines += load_store(store.kind).check(store.config, config.store_context(index))
    lines += _globs(config, lines)
    return lines


def _globs(config: AgentConfig, lines: list[CheckLine]) -> list[CheckLine]:
    """A glob that matches no signal that was found."""
    found = {str(line.data["signal"]) for line in lines if "signal" in line.data}
    asked = [(f"signal[{i}].match", rule.match) for i, rule in enumerate(config.rules)]
    asked += [(f"chart[{i}].signals", glob) for i, chart in enumerate(config.charts) for glob in chart.signals]
    return [
        CheckLine(level="fail", subject=key, text=f"{glob!r} matches none of the {len(found)} signals found")
        for key, glob in asked
        if not any(fnmatchcase(signal, glob) for signal in found)
    ]
