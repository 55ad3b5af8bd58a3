"""kill -9, again and again, in the middle of group commits: what was acknowledged is there, exactly once."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fieldlab.model import MachineState, RecordKind
from ingest.journal import Journal

ROUNDS = 20

# Plays the source, and the broker that redelivers what was not acknowledged. A fork a round: its imports are paid once.
SOURCE = """
import json, os, random, select, signal, sys
from pathlib import Path
import numpy as np
from fieldlab.model import Batch, MachineState, Place, SignalKey
from ingest.journal import Delivery, Journal

path, rounds = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(20261123)

def child(out, sent, acked):
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

sent, acked = 0, set()
for _ in range(rounds):
    end, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        try:
            child(out, sent, acked)
        finally:
            os._exit(3)
    os.close(out)
    select.select([end], [], [], 20)
    select.select([], [], [], chance.uniform(0.02, 0.2))  # the moment of the kill, not a wait for anything
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    with os.fdopen(end) as lines:
        for line in lines:
            number = int(line[1:])
            if line[0] == "a":
                acked.add(number)
            sent = max(sent, number + 1)
print(json.dumps({"sent": sent, "acked": sorted(acked)}))
"""


def test_what_was_acknowledged_survives_kill_9_exactly_once(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SOURCE, str(file), str(ROUNDS)],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["acked"]) > 10 * ROUNDS, "each round got somewhere"

    journal = Journal(file)
    try:
        found: Counter[tuple[int, int]] = Counter()
        moved = position = 0
        results: list[int] = []
        while chunk := journal.read(position, frozenset(RecordKind)).records:
            for record in chunk:
                position = record.position
                results += [row.time for row in record.rows if isinstance(row, MachineState)]
                if record.batch is not None:
                    found.update(
                        zip(record.batch.signal.tolist(), record.batch.value.astype(int).tolist(), strict=True)
                    )
                    moved += int((record.batch.time != record.batch.value * 10 + 1).sum())
        assert {n for signal, n in found if signal == 0} >= set(report["acked"])
        assert set(found.values()) == {1}, "nothing twice"
        assert moved == 0, "every reading has its own time"
        for number in {n for _, n in found}:
            assert all(found[signal, number] for signal in range(3)), "a message is there whole"
        totals = journal.identity.totals(3)
        assert totals["committed"].tolist() == [len(found) // 3] * 3
        assert (totals["received"] == totals["committed"] + totals["duplicate"]).all()
        cursor = journal.consumer("count")
        assert cursor is not None
        assert results == sorted(results)
        assert results[-1] == cursor.position, "results and cursor came together"
    finally:
        journal.close()
