"""Preflight: everything that an agent would need, tried without disturbing a running one."""

import asyncio
from fnmatch import fnmatchcase

import msgspec

from analytics.config import TELLING
from analytics.load import in_words, machine_load
from edge.actions.check import check_actions
from edge.config import AgentConfig, in_file
from edge.sources import load_kind as load_source
from edge.sources.base import CheckLine
from fieldlab.errors import ConfigError
from ingest.stores import load_kind as load_store


async def check(config: AgentConfig) -> list[CheckLine]:
    """Every line of `fieldlab check`, sources first.

    Raises:
        ConfigError: if a source's or store's table makes no sense as a whole.
    """
    lines: list[CheckLine] = []
    for index, source in enumerate(config.sources):
        try:
            lines += await load_source(source.kind).check(source.config, config.source_context(index))
        except ConfigError as e:
            raise in_file(config, e, source) from e
    kinds = [(source.kind, source.config) for source in config.sources]
    lines += await check_actions(config.actions, kinds, config.source_context)
    for index, store in enumerate(config.stores):
        context = config.store_context(index)
        found = await asyncio.to_thread(load_store(store.kind).check, store.config, context)
        lines += [CheckLine(level=line.level, subject=context.name, text=line.text) for line in found]
    return lines + _globs(config, lines) + _alarm_load(config, lines)


def _alarm_load(config: AgentConfig, lines: list[CheckLine]) -> list[CheckLine]:
    """How many false alarms the charts of each machine give by design."""
    found = {str(line.data["signal"]) for line in lines if "signal" in line.data}
    found |= {str(signal) for line in lines for signal in line.data.get("heard", ())}
    told, analytics = [], config.analytics()
    shift = f"{float(config.agent.shift) / 3600:g} h"
    for machine in sorted({signal.partition("/")[0] for signal in found}):
        loads = machine_load(analytics, machine, sorted(s for s in found if s.partition("/")[0] == machine))
        if loads:
            data = {"loads": [msgspec.to_builtins(load) for load in loads]}
            told.append(
                CheckLine(level="ok", subject=f"{machine}: false alarms", text=in_words(loads, shift), data=data)
            )
    return told


def _globs(config: AgentConfig, lines: list[CheckLine]) -> list[CheckLine]:
    """Globs that match no signal that was found. Where a machine was heard, its other signals may just be quiet now."""
    found = {str(line.data["signal"]) for line in lines if "signal" in line.data}
    heard = {str(signal) for line in lines for signal in line.data.get("heard", ())}
    asked = [(f"signal[{i}].match", rule.match) for i, rule in enumerate(config.rules)]
    asked += [(f"chart[{i}].signals", glob) for i, chart in enumerate(config.charts) for glob in chart.signals]
    asked += [
        (f"part[{i}].{kind}", f"{part.machine}/{name}")
        for i, part in enumerate(config.parts)
        for kind in TELLING
        for name in getattr(part, kind)
    ]
    asked += [
        (f"curve[{i}]", f"{curve.machine}/{name}") for i, curve in enumerate(config.curves) for name in curve.signals
    ]
    return [
        _unmatched(key, glob, found, heard, silent=any(line.level != "ok" for line in lines))
        for key, glob in asked
        if not any(fnmatchcase(signal, glob) for signal in found | heard)
    ]


def _unmatched(key: str, glob: str, found: set[str], heard: set[str], *, silent: bool) -> CheckLine:
    machine = glob.partition("/")[0]
    if any(fnmatchcase(signal.partition("/")[0], machine) for signal in heard):
        return CheckLine(level="warn", subject=key, text=f"{glob!r} was not heard while we listened")
    text = f"{glob!r} matches none of the {len(found | heard)} signals found; it must be machine/signal"
    return CheckLine(level="warn" if silent else "fail", subject=key, text=text)
