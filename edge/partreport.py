"""What was made and why not all of it is good; what went into a part, where it went, and which parts saw a thing.

Works on either store, by its `Reader` alone. Answers are plain values, as `fieldlab report parts --format json` prints.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from fieldlab.config import Duration
from fieldlab.model import PartEvent, Place, Verdict
from ingest.stores.base import Reader, StoreError

FOREVER = 2**63 - 1
MOST_PARTS = 1_000_000  # verdicts that a summary reads
MOST_LISTED = 1_000  # suspect and failed parts that it lists
MOST_NODES = 1_000  # parts of a genealogy; nobody reads more
MOST_SEEN = 100_000  # parts that saw a tool
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_FINDING_ID = re.compile(r"[0-9a-f]{16}")


def summary(reader: Reader, since: int) -> dict[str, Any]:
    """Parts whose end is not before `since` (ns), each by the newest revision of its verdict: counts and reasons."""
    verdicts = reader.verdicts(since, FOREVER, limit=MOST_PARTS)
    machines: dict[Place, list[Verdict]] = {}
    for verdict in verdicts:
        machines.setdefault(verdict.place, []).append(verdict)
    not_good = [v for v in verdicts if v.verdict != "pass"]
    return {
        "time": time.time_ns(),
        "since": since,
        "complete": len(verdicts) < MOST_PARTS,
        "totals": _counts(verdicts),
        "machines": [{"machine": place.path, **_counts(machines[place])} for place in sorted(machines)],
        "reasons": _reasons(not_good),
        "parts": [_shown(v) for v in not_good[:MOST_LISTED]],
        "not_listed": max(0, len(not_good) - MOST_LISTED),
    }


def genealogy(reader: Reader, part: str) -> dict[str, Any]:
    """A part's history; everything that went into it, and into that (`backward`); where it went (`forward`)."""
    backward, cut_back = _walk(part, lambda each: _consumed(reader.part_events(each)))
    forward, cut_on = _walk(part, lambda each: [_link(e, e.id) for e in reader.consumers(each)])
    named = [part, *(link["to"] for link in (*backward, *forward))]
    verdicts = {name: _newest(reader.part_verdicts(name)) for name in dict.fromkeys(named)}
    for link in (*backward, *forward):
        link["verdicts"] = [_shown(v) for v in verdicts[link["to"]]]
    events = reader.part_events(part)
    return {
        "part": part,
        "known": bool(events or verdicts[part] or forward),
        "verdicts": [_shown(v) for v in reader.part_verdicts(part)],
        "events": [_event(e) for e in events],
        "backward": backward,
        "forward": forward,
        "complete": not (cut_back or cut_on),
    }


def saw(reader: Reader, what: str, since: str) -> dict[str, Any]:
    """Parts that a tool, lot, program or whatever rides along was used on, at or after a moment.

    Args:
        reader: the store.
        what: `tool=T01`, or `T01` whatever it is called.
        since: a finding's id, a time (RFC 3339), or how long ago, such as `8h`; empty for ever.

    Raises:
        ValueError: if that is none of them, or no such finding is known.
    """
    name, _, value = what.rpartition("=")
    start = _moment(reader, since)
    found: dict[tuple[Place, str], int] = {}
    for event in reader.consumers(value, start, limit=MOST_SEEN):
        if not name or event.text == name:
            found.setdefault((event.place, event.id), event.time)
    verdicts = {(v.place, v.id): v for v in reader.verdicts(start, FOREVER, limit=MOST_PARTS)}
    for key, v in verdicts.items():  # parts under way at that moment were mounted before it
        rode = [told for called, told in v.genealogy.items() if not name or called == name]
        if v.start < start and any(value in told.split(", ") for told in rode):
            found.setdefault(key, v.start)
    parts = []
    for (place, part), first in sorted(found.items(), key=lambda item: (item[1], item[0])):
        verdict = verdicts.get((place, part))
        shown = (
            {"id": part, "machine": place.path, "verdict": "", "reasons": []} if verdict is None else _shown(verdict)
        )
        parts.append({**shown, "first": first, "into": []})
    for row in parts[:MOST_NODES]:
        row["into"] = list(dict.fromkeys(e.id for e in reader.consumers(row["id"])))
    return {"what": what, "since": start, "parts": parts, "counts": dict(Counter(p["verdict"] for p in parts))}


def routes(reader: Reader) -> Sequence[BaseRoute]:
    """`GET /report/parts?since=NS`, `?part=ID`, or `?saw=WHAT&since=…`."""

    async def answer(request: Request) -> Response:
        try:
            found = await asyncio.to_thread(ask, reader, dict(request.query_params))
        except ValueError as e:
            return PlainTextResponse(str(e), 400)
        except StoreError as e:
            return PlainTextResponse(str(e), 503)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return [Route("/report/parts", answer)]


def ask(reader: Reader, asked: dict[str, str]) -> dict[str, Any]:
    """One of the three, by the parameters of the route.

    Raises:
        ValueError: if they make no sense.
    """
    if "part" in asked:
        return genealogy(reader, asked["part"])
    if "saw" in asked:
        return saw(reader, asked["saw"], asked.get("since", ""))
    return summary(reader, int(asked.get("since", 0)))


def _counts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    count = Counter(v.verdict for v in verdicts)
    first = sum(v.verdict == "pass" and "rework" not in v.genealogy for v in verdicts)
    return {
        "made": len(verdicts),
        **{kind: count[kind] for kind in ("pass", "suspect", "fail")},
        "reworked": sum("rework" in v.genealogy for v in verdicts),
        "revised": sum(v.revision > 1 for v in verdicts),
        "first_pass_yield": first / len(verdicts) if verdicts else None,
    }


def _reasons(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Reasons that differ in their numbers alone are one; ranked by the parts that have them."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for v in verdicts:
        for key, words in {(v.place.machine, _NUMBER.sub("#", words)): words for words in v.reasons}.items():
            counts[key] += 1
            examples.setdefault(key, (words, v.id))
    return [
        {"machine": key[0], "reason": key[1], "parts": n, "example": examples[key][0], "part": examples[key][1]}
        for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _shown(v: Verdict) -> dict[str, Any]:
    return {
        "id": v.id, "machine": v.place.path, "revision": v.revision, "verdict": v.verdict, "score": v.score,
        "reasons": list(v.reasons), "start": v.start, "end": v.time, "features": v.features,
        "genealogy": v.genealogy, "limits_versions": v.limits_versions,
    }  # fmt: skip


def _event(e: PartEvent) -> dict[str, Any]:
    return {
        "time": e.time, "machine": e.place.path, "event": e.event, "other": e.other, "value": e.value, "text": e.text
    }  # fmt: skip


def _newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The newest revision on each machine."""
    newest: dict[Place, Verdict] = {}
    for v in verdicts:
        if v.place not in newest or v.revision > newest[v.place].revision:
            newest[v.place] = v
    return sorted(newest.values(), key=lambda v: v.time)


def _consumed(events: Iterable[PartEvent]) -> list[dict[str, Any]]:
    return [_link(e, e.other) for e in events if e.event == "consume"]


def _link(e: PartEvent, to: str) -> dict[str, Any]:
    return {"to": to, "part": e.id, "other": e.other, "as": e.text, "machine": e.place.path, "time": e.time}


def _walk(part: str, step: Callable[[str], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], bool]:
    """Links from a part on, each with its `level`, nearest first; and whether there are more than are told."""
    links: list[dict[str, Any]] = []
    known = {part}
    here = [part]
    level = 0
    while here:
        level += 1
        there: list[str] = []
        for name in here:
            told: set[tuple[str, str, str]] = set()
            for link in step(name):
                key = (link["to"], link["as"], link["machine"])
                if key in told:
                    continue
                told.add(key)
                links.append({**link, "level": level})
                if link["to"] not in known:
                    known.add(link["to"])
                    there.append(link["to"])
                if len(links) >= MOST_NODES:
                    return links, True
        here = there
    return links, False


def _moment(reader: Reader, since: str) -> int:
    if not since:
        return 0
    if _FINDING_ID.fullmatch(since):
        revisions = reader.finding(since)
        if not revisions:
            raise ValueError(f"no finding {since} is known to the store")
        return revisions[0].time
    if since.isdecimal():
        return int(since)
    try:
        return time.time_ns() - Duration.parse(since).ns
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(since)
    except ValueError:
        words = 'write a finding\'s id, a time such as "2026-03-01T14:00:00Z", or how long ago, such as "8h"'
        raise ValueError(f"{since!r} is not understood: {words}") from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6) * 1_000
