"""What was read again, in blocks that are known by what they hold: after a crash they come once more, as duplicates."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from edge.sources.base import Delivery
from fieldlab.model import Batch, concat


def packed(source: str, found: Sequence[tuple[str, Batch]], rows: int) -> Iterator[tuple[Batch, Delivery]]:
    """Batches of at most `rows` readings for the journal, each with the marks of its blocks.

    A server that answers as before a crash gives the same blocks; one that does not gives others, which are counted
    again, and stored as the same points.

    Args:
        source: its name.
        found: id of the gap, and the readings of it.
        rows: readings in a batch.
    """
    blocks = [
        (gap, readings.take(np.arange(start, min(start + rows, len(readings)))))
        for gap, readings in found
        for start in range(0, len(readings), rows)
    ]
    while blocks:
        count, size = 1, len(blocks[0][1])
        while count < len(blocks) and size + len(blocks[count][1]) <= rows:
            size += len(blocks[count][1])
            count += 1
        taken, blocks = blocks[:count], blocks[count:]
        marks = np.array([_mark(gap, block) for gap, block in taken], np.uint64)
        starts = np.cumsum([0, *(len(block) for _, block in taken[:-1])]).astype(np.uint32)
        again = np.ones(count, np.bool_)
        delivery = Delivery(f"_history {source}", marks.astype(np.uint16), marks, again, starts)
        yield concat([block for _, block in taken]), delivery


def _mark(gap: str, block: Batch) -> int:
    told = hashlib.blake2b(gap.encode(), digest_size=8)
    for column in (block.time, block.value, block.status, block.integer_row, block.integer):
        told.update(np.ascontiguousarray(column).tobytes())
    told.update(repr(sorted(block.texts().items())).encode("utf-8", "surrogatepass"))
    return int.from_bytes(told.digest(), "little")
