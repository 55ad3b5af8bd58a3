"""A run of rows of a batch, without copying its columns."""

import numpy as np

from fieldlab.model import Batch


def segment(batch: Batch, start: int, stop: int) -> Batch:
    """The rows [start, stop) of a batch."""
    if start == 0 and stop == len(batch):
        return batch
    rows = slice(start, stop)
    a, b = np.searchsorted(batch.text_row, [start, stop]).tolist()
    c, d = np.searchsorted(batch.integer_row, [start, stop]).tolist()
    return Batch(
        batch.signal[rows],
        batch.time[rows],
        batch.value[rows],
        batch.status[rows],
        batch.text_row[a:b] - np.uint32(start),
        batch.text[a:b],
        batch.integer_row[c:d] - np.uint32(start),
        batch.integer[c:d],
    )
