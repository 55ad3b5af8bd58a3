"""What the machines did with their planned time: OEE of each, by ISO 22400-2, from its states and its parts.

Works on either store, by its `Reader` alone. Answers are plain values, as `fieldlab report oee --format json` prints.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from analytics.oee import inside, oee
from edge.config import AgentConfig
from edge.oee import OeeConfig
from edge.stored import stored
from fieldlab.model import Gap, Place, SignalInfo, SignalKey, Verdict
from fieldlab.model.status import is_good
from ingest.gaps import Gaps as GapLedger
from ingest.journal import Journal
from ingest.stores.base import Reader, Series, StoreError

FOREVER = 2**63 - 1
MOST_READINGS = 1_000_000  # of a state signal: the newest
MOST_PARTS = 1_000_000
_FASTEST = 0.1  # share of the parts by which the planned cycle is set where none is configured
_FEWEST = 10  # parts for that
SILENT = 600 * 10**9  # ns without any reading of a machine: nothing is known of it since

Gaps = Callable[[int], Iterable[Gap]]


def summary(reader: Reader, config: AgentConfig, since: int, gaps: Gaps, *, live: bool) -> dict[str, Any]:
    """OEE of every machine with a state signal, of its planned time from `since` (ns) on; 0: since its first state.

    It ends now or, if no agent runs, with the newest reading of the machine. Of a machine that has said nothing for
    `SILENT` there is no data since.
    """
    now = time.time_ns()
    newest: dict[Place, int] = {}
    for key, series in reader.latest(since).items():
        newest[key.place] = max(newest.get(key.place, 0), int(series.time[-1]))
    infos = {info.key: info for info in reader.signals()}
    verdicts = reader.verdicts(since, FOREVER, limit=MOST_PARTS)
    missing = [gap for gap in gaps(0) if gap.state != "closed" and (gap.end or now) > since]
    machines: list[dict[str, Any]] = []
    stateless: set[str] = set()
    for place in sorted({key.place for key in infos}):
        table = next((t for t in config.oees if fnmatchcase(place.machine, t.machine)), OeeConfig())
        key = SignalKey(place, table.state)
        if key not in infos:
            stateless.add(place.path)
            continue
        heard = newest.get(place, since)
        end = now if live else heard + 1
        states = _said(reader, infos[key], since, end, [g for g in missing if g.key == key])
        if end - heard > SILENT:
            states.append((heard, None))
        begin = since or next((t for t, state in states if state is not None), end)
        made = [v for v in verdicts if v.place == place]
        reason = infos.get(SignalKey(place, table.reason))
        reasons = [] if reason is None else [(t, s or "") for t, s in _said(reader, reason, begin, end, [])]
        machines.append({"machine": place.path, **_machine(table, states, reasons, (begin, end), made)})
    return {
        "time": now,
        "since": since,
        "machines": machines,
        "without_state": sorted(stateless),
        "complete": len(verdicts) < MOST_PARTS,
    }


def _machine(
    table: OeeConfig,
    states: Sequence[tuple[int, str | None]],
    reasons: Sequence[tuple[int, str]],
    window: tuple[int, int],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    begin, end = window
    planned = table.planned(begin, end)
    made = [v for v in verdicts if inside(v.time, planned)]
    cycle, source = (table.cycle, "configured") if table.cycle is not None else _fastest(verdicts)
    found = oee(
        states,
        planned,
        table.categories,
        parts=len(made),
        good=sum(v.verdict == "pass" for v in made),
        cycle=cycle,
        reasons=reasons,
    )
    return {
        "start": begin,
        "end": end,
        **msgspec.to_builtins(found),
        "stops": [stop._asdict() for stop in found.stops],
        "suspect": sum(v.verdict == "suspect" for v in made),
        "failed": sum(v.verdict == "fail" for v in made),
        "cycle_from": source,
        "cut": len(states) >= MOST_READINGS,
    }


def _fastest(verdicts: Sequence[Verdict]) -> tuple[float | None, str]:
    times = sorted((v.time - v.start) / 1e9 for v in verdicts if v.start)
    if len(times) < _FEWEST:
        return None, "not known: give `cycle` in [[oee]]"
    return times[int(_FASTEST * len(times))], "the fastest tenth of the parts"


def _said(reader: Reader, info: SignalInfo, since: int, end: int, gaps: Sequence[Gap]) -> list[tuple[int, str | None]]:
    """What a text signal says from when on, None for nothing; the first is what was said before `since`."""
    before = reader.telemetry(info.key, 0, since, limit=1) if since else None
    series = reader.telemetry(info.key, since, end, limit=MOST_READINGS)
    said = ([] if before is None else _texts(before, info)) + _texts(series, info)
    for gap in gaps:  # what was said before a gap may have changed in it
        stop = gap.end or end
        said = [entry for entry in said if not gap.time <= entry[0] < stop]
        said.append((gap.time, None))
    said.sort(key=lambda entry: entry[0])
    return said


def _texts(series: Series, info: SignalInfo) -> list[tuple[int, str | None]]:
    good = is_good(series.status)
    found: list[tuple[int, str | None]] = []
    for row, (at, value) in enumerate(zip(series.time.tolist(), series.value.tolist(), strict=True)):
        text: str | None = series.text.get(row)
        if text is None and value == value:  # noqa: PLR0124  NaN is not itself
            number = f"{value:.0f}" if value == int(value) else repr(value)
            text = info.states.get(number, number)
        found.append((at, text if good[row] else None))
    return found


def routes(reader: Reader, config: Callable[[], AgentConfig], gaps: Gaps) -> Sequence[BaseRoute]:
    """`GET /report/oee?since=NS`; one is made at a time. `config` gives that in force, `gaps` those since a time."""
    one = asyncio.Lock()

    async def answer(request: Request) -> Response:
        try:
            since = int(request.query_params.get("since", 0))
            async with one:
                found = await asyncio.to_thread(summary, reader, config(), since, gaps, live=True)
        except ValueError as e:
            return PlainTextResponse(str(e), 400)
        except StoreError as e:
            return PlainTextResponse(str(e), 503)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return [Route("/report/oee", answer)]


def without_agent(config: AgentConfig, since: int) -> dict[str, Any]:
    """The same, from the files of an agent that does not run.

    Raises:
        RefusedError: if no agent has run yet, or no store can be queried.
        FieldlabError: if its journal cannot be opened, or an agent has just started on it.
    """
    with stored(config) as reader:
        journal = Journal(
            config.agent.data / "journal.db",
            max_bytes=int(config.agent.journal_max),
            max_series=config.agent.max_series,
        )
        try:
            return summary(reader, config, since, GapLedger(journal, config.agent.name).since, live=False)
        finally:
            journal.close()
