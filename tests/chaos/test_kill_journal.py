"""kill -9 at 200 moments of a small child, only a journal and a source: all is there, once, in order."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fieldlab.model import MachineState, RecordKind
from ingest.journal import Journal

ROUNDS = 200

# Plays the source, and the broker that redelivers what was not acknowledged. A fork a round: its imports are paid once.
# A third of the kills are placed: in a transaction, between commit and acknowledgement, in a checkpoint of the counts.
SOURCE = """
import json, os, random, select, signal, sys
from pathlib import Path
import numpy as np
from fieldlab.model import Batch, MachineState, Place, SignalKey
from ingest.journal import Delivery, Journal
from ingest.journal.database import Database

path, rounds = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(int(sys.argv[3]))
PLACES = {"in the transaction": ("_usage", False), "in a checkpoint": ("_checkpoint", True),
          "after the commit": ("commit", True), "at the insert": ("_insert", False)}

def kill_at(method, after, n):
    call, left = getattr(Database, method), [n]
    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(Database, method, counted)

def child(out, sent, acked, place, n):
    if place:
        kill_at(*PLACES[place], n)
    journal = Journal(path)
    journal.register("store", stateful=True)
    signals = [journal.signals.index(SignalKey.parse(f"s/a/l/m/x{i}")) for i in range(3)]
    again = [n for n in range(sent) if n not in acked]
    fresh = sent
    while True:
        if again:
            numbers, again = again[:4], again[4:]
        else:
            numbers = list(range(fresh, fresh + 4))
            fresh += 4
        os.write(out, ("".join(f"s{n}\\n" for n in numbers)).encode())
        rows = np.repeat(np.array(numbers), 3)
        batch = Batch.of(np.tile(np.array(signals, np.uint32), len(numbers)), rows * 10 + 1, rows.astype(float))
        ids = np.array([n % 65536 for n in numbers], np.uint16)
        delivery = Delivery("broker", ids, np.array(numbers, np.uint64) * 7919,
                            np.array([n < sent for n in numbers]), np.arange(0, len(rows), 3, dtype=np.uint32))
        future = journal.append(batch, delivery=delivery)
        future.add_done_callback(lambda f, numbers=numbers: f.exception() or
                                 os.write(out, ("".join(f"a{n}\\n" for n in numbers)).encode()))
        if fresh % 40 == 0:
            at = journal.position
            state = MachineState(time=at, place=Place("s", "a", "l", "m"), state="x")
            journal.advance("count", at, rows=[state])
        if journal.stats().waiting > 50:
            future.result()

sent, acked, kills = 0, set(), {}
for _ in range(rounds):
    place = chance.choice([*PLACES, *[""] * 8])
    kills[place or "random"] = kills.get(place or "random", 0) + 1
    end, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        try:
            child(out, sent, acked, place, chance.randint(5, 60))
        finally:
            os._exit(3)
    os.close(out)
    if not place:
        select.select([end], [], [], 20)
        select.select([], [], [], chance.uniform(0.0, 0.06))  # the moment of the kill, not a wait for anything
        os.kill(pid, signal.SIGKILL)
    lines = b""
    while more := os.read(end, 1 << 20):  # until it is dead: the pipe would fill
        lines += more
    os.close(end)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    for line in lines.decode().splitlines():
        number = int(line[1:])
        if line[0] == "a":
            acked.add(number)
        sent = max(sent, number + 1)
print(json.dumps({"sent": sent, "acked": sorted(acked), "kills": kills}))
"""


def test_what_was_acknowledged_survives_200_kills_exactly_once_and_in_order(
    tmp_path: Path, seed: int, tell: Callable[..., None]
) -> None:
    file = tmp_path / "journal.db"
    done = subprocess.run(
        [sys.executable, "-c", SOURCE, str(file), str(ROUNDS), str(seed)],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    acked = set(report["acked"])
    assert len(acked) > 5 * ROUNDS, "each round got somewhere"

    journal = Journal(file)
    try:
        found: Counter[tuple[int, int]] = Counter()
        order: list[int] = []
        moved = position = 0
        results: list[int] = []
        while chunk := journal.read(position, frozenset(RecordKind)).records:
            for record in chunk:
                position = record.position
                results += [row.time for row in record.rows if isinstance(row, MachineState)]
                if record.batch is not None:
                    numbers = record.batch.value.astype(int).tolist()
                    found.update(zip(record.batch.signal.tolist(), numbers, strict=True))
                    order += [n for s, n in zip(record.batch.signal.tolist(), numbers, strict=True) if s == 0]
                    moved += int((record.batch.time != record.batch.value * 10 + 1).sum())
        totals = journal.identity.totals(3)
        cursor = journal.consumer("count")
    finally:
        journal.close()
    lost = acked - set(order)
    tell(
        **report["kills"],
        sent=report["sent"],
        acknowledged=len(acked),
        committed=len(order),
        duplicate=int(totals["duplicate"][0]),
        lost=len(lost),
    )
    assert not lost
    assert set(order) <= set(range(report["sent"])), "nothing invented"
    assert set(found.values()) == {1}, "nothing twice"
    assert order == sorted(order), "in order"
    assert moved == 0, "every reading has its own time"
    assert all(found[signal, number] for number in order for signal in range(3)), "a message is there whole"
    assert totals["committed"].tolist() == [len(order)] * 3
    assert (totals["received"] == totals["committed"] + totals["duplicate"] + totals["rejected"]).all()
    assert cursor is not None
    assert results == sorted(results)
    assert results[-1] == cursor.position, "results and cursor came together"
