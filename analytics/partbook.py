"""Remembers judged parts, and revises their verdicts when something is said of them later, here or at another machine.

A fact is joined to a part by its id. Machines differ in their clocks and in how far they have been read, so facts wait
for the next tick of the journal and are taken in the order of their event times: the same journal always gives the same
revisions. A fact about a part that is still being made, or that nobody made yet, waits for its verdict.

- `measure`: judged by the specification limits of the signal that said it. If it contradicts what was measured while
  the part was made, the part is suspect until it is released: somebody must find out which is wrong.
- `inspect`: `ok` ends the doubts about a suspect part; `nok` fails it. Words: see `OK` and `NOK`; other words are kept
  in the event and judge nothing.
- `rework`: what was measured counts no more. The part is suspect until what failed it is in order at a measurement of
  the same name; if nothing failed it, until any measurement or inspection.
- `hold`: suspect, until `release`, which also ends the doubts. It does not make a failed part good.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from analytics.verdicts import Against, Opinion, weigh
from fieldlab.model import PartEventKind, Place, Verdict

OK = frozenset({"ok", "i.o.", "io", "pass", "passed", "good", "true", "1"})
NOK = frozenset({"nok", "n.i.o.", "nio", "fail", "failed", "bad", "reject", "rejected", "false", "0"})
MOST_WAITING = 10_000  # facts about parts that nobody made yet
MOST_REASONS = 10
_ANY = "*"  # after rework of a part that nothing had failed: any measurement or inspection will do


class Fact(msgspec.Struct, frozen=True):
    """Something said of a part.

    Attributes:
        time: event time, ns.
        place: path of the machine that said it.
        event: what kind.
        id: the part.
        signal: name of the signal that said it.
        text: what it said.
        value: a measurement's number.
        beyond: how far that is beyond its specification limit, negative inside; see `analytics.verdicts`.
        words: that in words, if it is beyond, or within a limit's guard band.
        of: machines, as a glob, that may have made the part; empty for any.
    """

    time: int
    place: str
    event: PartEventKind
    id: str
    signal: str
    text: str = ""
    value: float | None = None
    beyond: float = -1.0
    words: str = ""
    of: str = ""

    @property
    def in_order(self) -> bool:
        """Whether what was measured is surely inside its limits."""
        return self.beyond <= 0 and not self.words


class Life(msgspec.Struct):
    """What the verdict of one part rests on. `verdict` is its newest revision, `times` are those of its rows."""

    verdict: Verdict
    against: list[Against]
    doubts: list[str]
    closeness: float
    measured: dict[str, Fact] = {}  # by machine/signal
    nok: dict[str, str] = {}  # inspection → words
    held: str = ""
    wanted: list[str] = []  # characteristics to be in order after rework
    times: list[int] = []

    def take(self, fact: Fact) -> None:
        """Let a fact count."""
        name, machine = fact.signal, fact.place.rsplit("/", 1)[-1]
        if fact.event == "measure":
            self.measured[f"{machine}/{name}"] = fact
            if fact.in_order:
                self._in_order(name)
        elif fact.event == "inspect":
            said = fact.text.strip().casefold()
            if said in OK:
                self._settle()
                self.nok.pop(f"{machine}/{name}", None)
                self._in_order(name)
            elif said in NOK:
                self.nok[f"{machine}/{name}"] = f"inspection {machine}/{name}: {fact.text}"
        elif fact.event == "rework":
            failed = [*(a.signal for a in self._out()), *(key.split("/", 1)[1] for key in self.nok)]
            self.wanted = sorted(set(failed) | set(self.wanted) - {_ANY}) or [_ANY]
            self.against, self.doubts, self.measured, self.nok = [], [], {}, {}
            self.note("rework", fact.text or name)
        elif fact.event == "hold":
            self.held = f"held at {machine}: {fact.text}"
        elif fact.event == "release":
            good = {f.signal for f in self.measured.values() if f.in_order}
            self.held = ""
            self._settle()
            self.against = [a for a in self.against if a.signal not in good]

    def _settle(self) -> None:
        """A person decided: doubts end, those of a measurement within its guard band too."""
        self.doubts = []
        self.measured = {key: f for key, f in self.measured.items() if f.in_order or f.beyond > 0}

    def note(self, name: str, text: str) -> None:
        """Let something ride along with the verdict, behind what does."""
        before = self.verdict.genealogy.get(name)
        told = text if not before else before if text in before.split(", ") else f"{before}, {text}"
        self.verdict = msgspec.structs.replace(self.verdict, genealogy={**self.verdict.genealogy, name: told})

    def opinion(self) -> Opinion:
        """What follows from all that is known."""
        good = {f.signal: key for key, f in sorted(self.measured.items()) if f.in_order}
        doubts = [self.held] if self.held else []
        if self.wanted:
            what = "anything" if self.wanted == [_ANY] else ", ".join(self.wanted)
            doubts.append(f"reworked ({self.verdict.genealogy.get('rework', '')}), and {what} not measured since")
        doubts += [
            f"{a.words}, but in order at {good[a.signal]}: release it when you know which is right"
            for a in self.against
            if a.signal in good
        ]
        doubts += [
            f"{f.words} at {key.split('/', 1)[0]}" for key, f in self.measured.items() if f.words and f.beyond <= 0
        ]
        closeness = max([self.closeness, *(min(f.beyond + 1.0, 1.0) for f in self.measured.values())])
        return weigh(self._out(), doubts + self.doubts, closeness)

    def revise(self) -> Verdict:
        """The verdict that follows now, with the revision and the time of the one before."""
        found = self.opinion()
        features = self.verdict.features | {key: f.value for key, f in self.measured.items() if f.value is not None}
        self.verdict = msgspec.structs.replace(
            self.verdict, verdict=found.verdict, score=found.score, reasons=found.reasons[:MOST_REASONS],
            features=features,
        )  # fmt: skip
        return self.verdict

    def _out(self) -> list[Against]:
        good = {f.signal for f in self.measured.values() if f.in_order}
        measured = [
            Against(f.signal, f.beyond, f"{f.words} at {key.split('/', 1)[0]}")
            for key, f in self.measured.items()
            if f.beyond > 0
        ]
        return [
            *(a for a in self.against if a.signal not in good),
            *measured,
            *(Against(key.split("/", 1)[1], 0.0, words) for key, words in self.nok.items()),
        ]

    def _in_order(self, name: str) -> None:
        self.wanted = [wanted for wanted in self.wanted if wanted not in (name, _ANY)]


class PartBook:
    """Judged parts of all machines, the newest `remember` of each.

    Attributes:
        unmatched: facts given up, because they waited for a part that nobody made.

    Args:
        making: whether a part is being made right now on one of the machines (a glob; empty for any).
    """

    def __init__(self, making: Callable[[str, str], bool]) -> None:
        self._making = making
        self._lives: dict[str, dict[str, bytes]] = {}  # machine path → part → packed life, oldest first
        self._used: dict[str, set[int]] = {}  # machine path → times of the rows of those
        self._makers: dict[str, list[str]] = {}  # part → paths of the machines that made it
        self._facts: list[Fact] = []
        self._waiting: dict[str, list[Fact]] = {}
        self._fresh: set[str] = set()  # parts that waiting facts may look at again
        self.unmatched = 0

    def find(self, place: Place, part: str) -> Life | None:
        """What the verdict of a part rests on, if it is remembered."""
        packed = self._lives.get(place.path, {}).get(part)
        return None if packed is None else msgspec.msgpack.decode(packed, type=Life)

    def keep(self, life: Life, remember: int) -> None:
        """Remember a part, the oldest of its machine give way."""
        path, part = life.verdict.place.path, life.verdict.id
        lives, used = self._lives.setdefault(path, {}), self._used.setdefault(path, set())
        life.times.append(life.verdict.time)
        used.add(life.verdict.time)
        lives.pop(part, None)
        lives[part] = msgspec.msgpack.encode(life)
        makers = self._makers.setdefault(part, [])
        if path not in makers:
            makers.append(path)
        self._fresh.add(part)
        while len(lives) > remember:
            old = next(iter(lives))
            used.difference_update(msgspec.msgpack.decode(lives.pop(old), type=Life).times)
            self._makers[old].remove(path)
            if not self._makers[old]:
                del self._makers[old]

    def used(self, place: Place) -> AbstractSet[int]:
        """Times of the rows of the remembered parts of a machine."""
        return self._used.get(place.path, frozenset())

    def say(self, fact: Fact) -> None:
        """Take a fact about a part; it counts at the next tick."""
        self._facts.append(fact)

    def tick(self) -> list[Verdict]:
        """Verdicts that what was said since the last tick has changed, as new revisions, in the order of event time."""
        news, self._facts = self._facts, []
        if self._waiting and self._fresh:
            for part in sorted(self._fresh & self._waiting.keys()):
                news += self._waiting.pop(part)
        self._fresh.clear()
        if not news:
            return []
        together: dict[tuple[str, str], list[Fact]] = {}  # (machine path, part) → its facts
        for fact in sorted(news, key=lambda f: (f.time, f.place, f.signal)):
            path = None if self._making(fact.of, fact.id) else self._maker(fact)
            if path is None:
                self._wait(fact)
            else:
                together.setdefault((path, fact.id), []).append(fact)
        return [self._revise(path, part, facts) for (path, part), facts in together.items()]

    def _maker(self, fact: Fact) -> str | None:
        """The machine that made a part last, by event time."""
        made = self._makers.get(fact.id, ())
        found = [p for p in made if not fact.of or fnmatchcase(p.rsplit("/", 1)[-1], fact.of)]
        return found[0] if len(found) == 1 else max(found, key=lambda p: (self._ended(p, fact.id), p), default=None)

    def _ended(self, path: str, part: str) -> int:
        return msgspec.msgpack.decode(self._lives[path][part], type=Life).verdict.time

    def _wait(self, fact: Fact) -> None:
        self._waiting.setdefault(fact.id, []).append(fact)
        if sum(map(len, self._waiting.values())) > MOST_WAITING:
            oldest = min(self._waiting, key=lambda part: self._waiting[part][0].time)
            self.unmatched += len(self._waiting.pop(oldest))

    def _revise(self, path: str, part: str, facts: Iterable[Fact]) -> Verdict:
        life = msgspec.msgpack.decode(self._lives[path][part], type=Life)
        for fact in facts:
            life.take(fact)
        verdict = life.revise()
        time = verdict.time
        while time in self._used[path]:
            time += 1
        life.verdict = msgspec.structs.replace(verdict, revision=verdict.revision + 1, time=time)
        life.times.append(time)
        self._used[path].add(time)
        self._lives[path][part] = msgspec.msgpack.encode(life)  # in its place: a revision keeps nobody alive
        return life.verdict

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "lives": [(path, list(lives.items())) for path, lives in self._lives.items()],
            "facts": msgspec.to_builtins(self._facts),
            "waiting": msgspec.to_builtins([f for facts in self._waiting.values() for f in facts]),
            "fresh": sorted(self._fresh),
            "unmatched": self.unmatched,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        for path, lives in saved["lives"]:
            self._lives[path] = dict(lives)
            self._used[path] = {
                time
                for packed in self._lives[path].values()
                for time in msgspec.msgpack.decode(packed, type=Life).times
            }
            for part in self._lives[path]:
                self._makers.setdefault(part, []).append(path)
        self._facts = msgspec.convert(saved["facts"], list[Fact])
        for fact in msgspec.convert(saved["waiting"], list[Fact]):
            self._waiting.setdefault(fact.id, []).append(fact)
        self._fresh = set(saved["fresh"])
        self.unmatched = saved["unmatched"]
