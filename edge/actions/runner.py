"""Actions as a consumer of the journal: each trigger acts at most once, and leaves one row of audit.

The intent (outcome `unknown`) is committed with the cursor before anything leaves; the result follows, under the same
id and time, so that it replaces the intent in every store. After a crash in between, nothing is repeated.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from edge.actions.command import Answer, Commandable, target_of
from edge.actions.config import ActionConfig, BoundAction, command_of
from edge.actions.limiter import Limit, Limiter
from fieldlab.model import ActionRow, Finding, Place, Record, RecordKind, Verdict
from ingest.forwarder import ConsumerStatus
from ingest.journal import Journal

log = structlog.get_logger()

NAME: Final = "actions"
KINDS: Final = frozenset({RecordKind.FINDING, RecordKind.PART})
_LAZY_MOVE: Final = 500  # positions without a trigger before the cursor is moved on disk
_REMEMBERED: Final = 1_000  # triggers that are known to have been decided
_LONGEST_DETAIL: Final = 500
_SENT: Final = "sent; whether it was done is not known, and it is not repeated"


class Trigger(msgspec.Struct, frozen=True):
    """What asks for an action: whose, since when (ns), its id, and the words for placeholders."""

    place: Place
    since: int
    id: str
    key: str
    words: dict[str, str]


class _State(msgspec.Struct, frozen=True):
    """What the consumer's row keeps: uses of each action, triggers that were decided, the last row's time."""

    used: dict[str, tuple[int, ...]] = {}
    decided: tuple[str, ...] = ()
    last: int = 0


class _Intent(msgspec.Struct, frozen=True):
    action: BoundAction
    trigger: Trigger
    row: ActionRow
    until: int


class Actions:
    """The consumer `actions`. `run` belongs to one event loop.

    Args:
        journal: where it reads, and where the audit goes.
        actions: what to do, in order.
        sources: index → the source.
        clock: the time, ns.

    Attributes:
        error: why it stopped acting, else empty.
        outcomes: outcome → how often, since the start.
    """

    def __init__(
        self,
        journal: Journal,
        actions: Sequence[BoundAction],
        sources: Mapping[int, Commandable],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._journal = journal
        self._actions = actions
        self._sources = sources
        self._clock = clock
        self._wake = asyncio.Event()
        self.error = ""
        self.outcomes: dict[str, int] = {}
        known = journal.consumer(NAME)
        if known is None:  # what was concluded before there were actions asks for none
            head = journal.position
            journal.advance(NAME, head, keep_from=head).result()
            known = journal.register(NAME)
        self._position = self._saved = known.position
        state = msgspec.msgpack.decode(known.state, type=_State) if known.state else _State()
        self._limiters = {
            a.config.name: Limiter(Limit.parse(a.config.limit), state.used.get(a.config.name, ())) for a in actions
        }
        self._decided = dict.fromkeys(state.decided)
        self._last = state.last

    def wake(self) -> None:
        """Say that the journal has more; to be called in the event loop."""
        self._wake.set()

    def status(self) -> ConsumerStatus:
        """How it is doing; safe to call from any thread."""
        records, readings = self._journal.lag(self._position, KINDS)
        return ConsumerStatus(
            name=NAME,
            position=self._position,
            lag_records=records,
            lag_readings=readings,
            lag_seconds=self._journal.age(self._position, KINDS) if records else 0.0,
            error=self.error,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Act until `stop` is set; then end what was begun, and begin nothing. If acting breaks, the rest goes on."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._run(stop, stopping)
        except Exception as e:
            log.exception("actions_broke", position=self._position)
            self.error = f"actions broke behind record {self._position} ({e!r}): none is done any more; report it"
            while not stop.is_set():  # the journal is not to be kept for what will never be done
                self._wake.clear()
                self._position = self._journal.position
                if self._due():
                    await self._move(self._position, [])
                await self._woken(stopping)
        finally:
            stopping.cancel()

    async def _run(self, stop: asyncio.Event, stopping: "asyncio.Task[bool]") -> None:
        while not stop.is_set():
            self._wake.clear()
            chunk = await asyncio.to_thread(self._journal.read, self._position, KINDS)
            for record in chunk.records:
                if stop.is_set():
                    break
                await self._handle(record)
            else:
                self._position = chunk.upto
            if self._due():
                await self._move(self._position, [])
            if not chunk.records:
                await self._woken(stopping)
        await self._move(self._position, [])

    def _due(self) -> bool:
        return self._position - self._saved > (0 if self._journal.full else _LAZY_MOVE)

    async def _woken(self, stopping: "asyncio.Task[bool]") -> None:
        woken = asyncio.create_task(self._wake.wait())
        await asyncio.wait({woken, stopping}, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    async def _handle(self, record: Record) -> None:
        """Decide on every trigger of a record, commit that with the cursor, and only then act."""
        rows: list[ActionRow] = []
        intents: list[_Intent] = []
        for action, trigger in self._triggers(record):
            if trigger.key in self._decided:
                continue  # judged again by charts that started afresh: decided once is decided
            self._decided[trigger.key] = None
            decided = self._decide(action, trigger, record)
            if isinstance(decided, _Intent):
                intents.append(decided)
            else:
                rows.append(decided)
        while len(self._decided) > _REMEMBERED:
            del self._decided[next(iter(self._decided))]
        if not rows and not intents:
            self._position = record.position
            return
        await self._move(record.position, [*rows, *(intent.row for intent in intents)])
        for row in rows:
            self._tell(row)
        by_source: dict[int, list[_Intent]] = {}
        for intent in intents:
            by_source.setdefault(intent.action.source, []).append(intent)
        await asyncio.gather(*(self._act(each) for each in by_source.values()))

    def _triggers(self, record: Record) -> Iterator[tuple[BoundAction, Trigger]]:
        for row in record.rows:
            for action in self._actions:
                if isinstance(row, Finding | Verdict) and (found := _trigger(action.config, row, record)) is not None:
                    yield action, found

    def _decide(self, action: BoundAction, trigger: Trigger, record: Record) -> "_Intent | ActionRow":
        config = action.config
        now = self._clock()
        until = min(trigger.since, record.time) + config.max_age.ns
        row = ActionRow(
            time=self._unique(now),
            place=trigger.place,
            action=config.name,
            id=trigger.key,
            trigger=trigger.id,
            target=target_of(config.what),
            value=_shown(config, trigger),
            outcome="unknown",
            detail=_SENT,
        )
        limit = float(config.max_age)
        if now > until:
            old = (now - min(trigger.since, record.time)) / 1e9
            return _with(row, "refused", f"stale: the trigger is {old:.1f} s old, and max_age is {limit:g} s")
        if trigger.since - now > config.max_age.ns:
            ahead = (trigger.since - now) / 1e9
            return _with(
                row, "refused", f"the trigger's time is {ahead:.1f} s in the future: check the machine's clock"
            )
        if not self._limiters[config.name].take(now):
            return _with(row, "limited", f"more than {config.limit}: nothing was sent")
        if config.dry_run:
            row = _with(row, "dry_run", "nothing was sent")
        return _Intent(action, trigger, row, until)

    async def _act(self, intents: Sequence[_Intent]) -> None:
        """Do what was committed as an intent, one after the other, and commit each result."""
        for intent in intents:
            source = self._sources[intent.action.source]
            command = command_of(intent.action.config, intent.trigger.words, intent.until)
            try:
                answer = await source.command(command)
            except Exception as e:
                log.exception("action_broke", action=intent.row.action)
                answer = Answer(outcome="unknown", detail=f"{_SENT} ({e!r})")
            row = _with(intent.row, answer.outcome, answer.detail)
            await asyncio.wrap_future(self._journal.write([row]))
            self._tell(row)

    async def _move(self, position: int, rows: list[ActionRow]) -> None:
        used = {name: limiter.times for name, limiter in self._limiters.items()}
        state = msgspec.msgpack.encode(_State(used, tuple(self._decided), self._last))
        await asyncio.wrap_future(self._journal.advance(NAME, position, keep_from=position, state=state, rows=rows))
        self._position = self._saved = position

    def _unique(self, now: int) -> int:
        """A time for a row: no two share one, also when the clock is set back."""
        self._last = max(now, self._last + 1)
        return self._last

    def _tell(self, row: ActionRow) -> None:
        self.outcomes[row.outcome] = self.outcomes.get(row.outcome, 0) + 1
        say = log.info if row.outcome in ("done", "dry_run") else log.warning
        say(
            "action",
            action=row.action,
            outcome=row.outcome,
            machine=row.place.path,
            trigger=row.trigger,
            target=row.target,
            value=row.value,
            detail=row.detail,
            id=row.id,
        )


def _trigger(action: ActionConfig, row: Finding | Verdict, record: Record) -> Trigger | None:
    """What `row` of a record means to an action; None if nothing."""
    if isinstance(row, Finding):
        fits = action.on == "finding" and action.wants(row.state, row.severity)
        if not fits or not action.fits_finding(row.place.machine, row.signal, row.chart, row.rule):
            return None
        words = {
            "finding.id": row.id,
            "part": row.part,
            "machine": row.place.machine,
            "signal": row.signal,
            "chart": row.chart,
            "rule": row.rule,
            "severity": row.severity,
        }
        return Trigger(row.place, row.time, row.id, _key(action.name, row.place, row.id, row.state), words)
    if action.on != "verdict" or row.verdict != action.verdict or not action.fits_machine(row.place.machine):
        return None
    words = {"part": row.id, "machine": row.place.machine, "verdict": row.verdict}
    since = row.time if row.revision == 1 else record.time  # a revision keeps the time of the part's end, hours ago
    return Trigger(row.place, since, row.id, _key(action.name, row.place, row.id, row.verdict), words)


def _key(*words: object) -> str:
    """16 hexadecimal digits: the id of an action's rows. A later revision that says the same is the same trigger."""
    text = "\0".join(word.path if isinstance(word, Place) else str(word) for word in words)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _shown(config: ActionConfig, trigger: Trigger) -> str:
    what = command_of(config, trigger.words, 0).what
    found = getattr(what, "value", None) if config.write is not None else list(getattr(what, "arguments", ()))
    return msgspec.json.encode(found).decode()[:_LONGEST_DETAIL]


def _with(row: ActionRow, outcome: str, detail: str) -> ActionRow:
    return msgspec.structs.replace(row, outcome=outcome, detail=detail[:_LONGEST_DETAIL] or outcome)
