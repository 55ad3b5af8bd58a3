"""The consumer over a real journal: the intent is on disk before anything leaves, and each trigger has one end."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.actions.command import Answer, Command, WriteNode
from edge.actions.config import ActionConfig, BoundAction
from edge.actions.runner import KINDS, NAME, Actions
from fieldlab.config import Duration
from fieldlab.model import ActionRow, Finding, PartEvent, Place, RecordKind, Verdict
from ingest.journal import Journal

CNC = Place("drachten", "shavers", "3", "cnc-07")
ROBOT = Place("drachten", "shavers", "3", "robot-1")
NOW = 1_763_900_000 * 10**9
SECOND = 10**9


class Machine:
    """Takes commands, and sees what the journal holds when each comes."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.commands: list[Command] = []
        self.before: list[list[ActionRow]] = []
        self.positions: list[int] = []
        self.answer: Callable[[Command], Answer] = lambda _: Answer(outcome="done", detail="Good")
        self.hangs = False

    async def command(self, command: Command) -> Answer:
        self.commands.append(command)
        self.before.append(audit(self.journal))
        found = self.journal.consumer(NAME)
        self.positions.append(found.position if found else -1)
        if self.hangs:
            await asyncio.Event().wait()
        return self.answer(command)


def audit(journal: Journal) -> list[ActionRow]:
    return [row for r in journal.read(0, frozenset({RecordKind.ACTION})).records for row in r.rows]  # type: ignore[misc]  # rows of that kind


def final(journal: Journal) -> dict[str, ActionRow]:
    """The last row of each trigger."""
    return {row.id: row for row in audit(journal)}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def machine(journal: Journal) -> Machine:
    return Machine(journal)


def action(**keys: Any) -> BoundAction:
    write = WriteNode(node="nsu=urn:x;s=hold", value=True)
    defaults: dict[str, Any] = {"name": "hold", "on": "finding", "source": 0, "write": write, "dry_run": False}
    return BoundAction(config=ActionConfig(**{**defaults, **keys}), source=0)


def finding(number: int = 1, time: int = NOW, **keys: Any) -> Finding:
    defaults: dict[str, Any] = {"place": CNC, "signal": "load", "chart": "c", "rule": "1", "id": f"f{number}"}
    return Finding(time=time, **{**defaults, **keys})


def run(actions: Actions, *, until: Callable[[], bool] | None = None) -> None:
    """Run until everything is handled, or until something holds; then stop in good order, or be killed."""

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(actions.run(stop))
        async with asyncio.timeout(30):
            while not (until() if until else actions.status().lag_records == 0):  # noqa: ASYNC110  of what has no event
                await asyncio.sleep(0.005)
        if until is None:
            stop.set()
            await task
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_the_intent_is_on_disk_before_anything_leaves(journal: Journal, machine: Machine) -> None:
    actions = Actions(journal, [action()], {0: machine}, lambda: NOW)
    journal.write([finding()]).result()
    at = journal.position
    run(actions)
    (command,) = machine.commands
    (intent,) = machine.before[0]
    assert machine.positions == [at], "the cursor is behind the trigger already"
    assert (intent.outcome, intent.trigger, intent.value, intent.target) == (
        "unknown",
        "f1",
        "true",
        "nsu=urn:x;s=hold",
    )
    assert command.until <= NOW + 30 * SECOND
    rows = audit(journal)
    assert [row.outcome for row in rows] == ["unknown", "done"]
    assert (rows[0].id, rows[0].time) == (rows[1].id, rows[1].time), "the result takes the intent's place in a store"
    assert actions.outcomes == {"done": 1}


def test_after_a_crash_nothing_is_repeated(journal: Journal, machine: Machine) -> None:
    machine.hangs = True
    first = Actions(journal, [action()], {0: machine}, lambda: NOW)
    journal.write([finding(1), finding(2)]).result()  # the second waits for the first: it never left
    run(first, until=lambda: bool(machine.commands))
    machine.hangs = False
    run(Actions(journal, [action()], {0: machine}, lambda: NOW))
    assert len(machine.commands) == 1
    assert {row.trigger: row.outcome for row in final(journal).values()} == {"f1": "unknown", "f2": "unknown"}
    journal.write([finding(3)]).result()
    run(Actions(journal, [action()], {0: machine}, lambda: NOW))
    assert len(machine.commands) == 2


def test_what_came_before_there_were_actions_asks_for_none(journal: Journal, machine: Machine) -> None:
    journal.write([finding()]).result()
    run(Actions(journal, [action()], {0: machine}, lambda: NOW))
    assert audit(journal) == []


@pytest.mark.parametrize(
    ("time", "word"),
    [(NOW - 31 * SECOND, "stale"), (NOW - 86400 * SECOND, "stale"), (NOW + 31 * SECOND, "in the future")],
)
def test_a_trigger_of_another_time_is_refused(journal: Journal, machine: Machine, time: int, word: str) -> None:
    actions = Actions(journal, [action()], {0: machine}, lambda: NOW)
    journal.write([finding(time=time)]).result()
    run(actions)
    (row,) = audit(journal)
    assert (row.outcome, machine.commands) == ("refused", [])
    assert word in row.detail


def test_a_fresh_time_in_a_record_that_waited_is_stale_too(journal: Journal, machine: Machine) -> None:
    """The agent was down: the machine's clock is ahead, but the record tells when it was committed."""
    actions = Actions(journal, [action()], {0: machine})
    journal.write([finding(time=2**62)]).result()
    run(actions)
    assert [row.outcome for row in audit(journal)] == ["refused"]


def test_the_limit_holds_also_over_a_restart(journal: Journal, machine: Machine) -> None:
    now = NOW
    limited = action(limit="2/h", max_age=Duration(3600))
    run(Actions(journal, [limited], {0: machine}, lambda: now))
    for number in range(4):
        journal.write([finding(number, now)]).result()
        run(Actions(journal, [limited], {0: machine}, lambda: now))
    assert [row.outcome for row in final(journal).values()] == ["done", "done", "limited", "limited"]
    now += 3600 * SECOND
    journal.write([finding(9, now)]).result()
    run(Actions(journal, [limited], {0: machine}, lambda: now))
    assert len(machine.commands) == 3


@pytest.mark.parametrize(
    ("keys", "rows", "acts"),
    [
        ({}, [finding(severity="warning")], 1),
        ({"severity": "alarm"}, [finding(severity="warning")], 0),
        ({"machine": "robot-*"}, [finding()], 0),
        ({"machine": "robot-*"}, [finding(place=ROBOT)], 1),
        ({"signal": "_all"}, [finding()], 0),
        ({"chart": "d*"}, [finding(), finding(2, chart="drift")], 1),
        ({"rule": "2"}, [finding(), finding(2, rule="2")], 1),
        ({}, [finding(state="cleared", revision=2), finding(state="acknowledged", revision=2)], 0),
        ({"state": "cleared"}, [finding(), finding(state="cleared", revision=2)], 1),
        ({}, [Verdict(time=NOW, place=CNC, id="p1", verdict="fail")], 0),
        ({"on": "verdict"}, [Verdict(time=NOW, place=CNC, id="p1", verdict="fail")], 1),
        ({"on": "verdict"}, [Verdict(time=NOW, place=CNC, id="p1", verdict="suspect"), finding()], 0),
        ({"on": "verdict", "verdict": "suspect"}, [Verdict(time=NOW, place=CNC, id="p1", verdict="suspect")], 1),
        ({"on": "verdict", "machine": "x"}, [Verdict(time=NOW, place=CNC, id="p1", verdict="fail")], 0),
        ({"on": "verdict"}, [PartEvent(time=NOW, place=CNC, id="p1", event="hold")], 0),
        # A later revision that says the same is the same trigger; charts that start afresh tell it again.
        ({"on": "verdict"}, [Verdict(time=NOW, place=CNC, id="p1", verdict="fail", revision=r) for r in (1, 2)], 1),
        ({}, [finding(), finding()], 1),
    ],
)
def test_what_is_a_trigger(journal: Journal, machine: Machine, keys: Any, rows: Any, acts: int) -> None:
    actions = Actions(journal, [action(**keys)], {0: machine}, lambda: NOW)
    for row in rows:
        journal.write([row]).result()
    run(actions)
    assert len(machine.commands) == acts == len(final(journal))


@pytest.mark.parametrize("outcome", ["refused", "failed", "unknown", "dry_run"])
def test_the_answer_is_the_end(journal: Journal, machine: Machine, outcome: Any) -> None:
    machine.answer = lambda _: Answer(outcome=outcome, detail="BadUserAccessDenied")
    actions = Actions(journal, [action(dry_run=outcome == "dry_run")], {0: machine}, lambda: NOW)
    journal.write([finding()]).result()
    run(actions)
    (row,) = final(journal).values()
    assert (row.outcome, row.detail) == (outcome, "BadUserAccessDenied")
    assert len(machine.commands) == 1, "never a second try"
    assert machine.commands[0].dry == (outcome == "dry_run")


def test_a_source_that_breaks_leaves_its_trigger_unknown(journal: Journal, machine: Machine) -> None:
    def broken(_: Command) -> Answer:
        raise RuntimeError("a fault of ours")

    machine.answer = broken
    actions = Actions(journal, [action()], {0: machine}, lambda: NOW)
    journal.write([finding()]).result()
    run(actions)
    (row,) = final(journal).values()
    assert row.outcome == "unknown"
    assert "a fault of ours" in row.detail


def test_rows_have_times_of_their_own(journal: Journal, machine: Machine) -> None:
    """One place and one name: a store would take two rows at one time for one."""
    actions = Actions(journal, [action(limit="60/h")], {0: machine}, lambda: NOW)
    journal.write([finding(i) for i in range(20)]).result()
    run(actions)
    assert len({row.time for row in final(journal).values()}) == 20
    assert len(final(journal)) == 20


def test_it_holds_no_records_that_it_has_handled(journal: Journal, machine: Machine) -> None:
    actions = Actions(journal, [action()], {0: machine}, lambda: NOW)
    journal.write([finding()]).result()
    run(actions)
    found = journal.consumer(NAME)
    assert found is not None
    assert found.keep_from == found.position
    assert journal.lag(found.position, KINDS) == (0, 0)


def test_a_clock_without_time_breaks_actions_alone(journal: Journal, machine: Machine) -> None:
    """Whatever breaks here is said, and holds neither the agent nor the journal."""

    def clock() -> int:
        raise OSError("no time")

    actions = Actions(journal, [action()], {0: machine}, clock)
    journal.write([finding()]).result()
    run(actions, until=lambda: bool(actions.error))
    assert "no time" in actions.status().error
    assert machine.commands == []
