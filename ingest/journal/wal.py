"""Reads SQLite's write-ahead log as bytes: which of its frames are whole, and whether one in the middle is damaged.

SQLite itself ends at the first frame that is not whole, and says nothing. That is right for what a power cut tore,
which was not synced; what was synced and is damaged would be lost unseen. Format and checksum:
https://sqlite.org/fileformat2.html#walformat. The checksum is linear, so all frames are checked at once: each from
the sum that the frame before it has in its header.
"""

import struct
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

HEADER, FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "<u4", 0x377F0683: ">u4"}
_CHUNK = 2_000  # frames checked at once


class Log(msgspec.Struct, frozen=True, eq=False):
    """The frames of a log.

    Attributes:
        page_size: bytes.
        pages: which page each frame holds, (n,).
        commits: whether it ends a transaction, (n,).
        good: whether it is whole, and of this log, (n,).
        damaged: why a frame that had been synced cannot be; empty if none.
    """

    page_size: int
    pages: NDArray[np.uint32]
    commits: NDArray[np.bool_]
    good: NDArray[np.bool_]
    damaged: str

    def newest(self) -> dict[int, int]:
        """Page → the offset in the file of its newest whole copy that was committed."""
        committed = np.flatnonzero(self.commits & self.good)
        if self.damaged:
            end = int(committed[-1]) + 1 if len(committed) else 0
        else:
            whole = len(self.good) if self.good.all() else int(np.argmin(self.good))
            committed = committed[committed < whole]
            end = int(committed[-1]) + 1 if len(committed) else 0
        rows = np.flatnonzero(self.good[:end])
        offsets = HEADER + rows * (FRAME_HEADER + self.page_size) + FRAME_HEADER
        return dict(zip(self.pages[rows].tolist(), offsets.tolist(), strict=True))


_NONE = np.zeros(0, np.bool_)


def read_log(file: Path, page_size: int = 4096) -> Log:
    """The frames of `file`; none if there is no such file.

    Args:
        file: the log.
        page_size: that of the database, for a log whose header is damaged.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        content = np.memmap(file, np.uint8, "r") if file.stat().st_size > HEADER + FRAME_HEADER else None
    except FileNotFoundError:
        content = None
    if content is None:
        return Log(page_size, np.zeros(0, np.uint32), _NONE, _NONE, "")
    header = content[:HEADER].tobytes()
    magic, _, size, _, *_, first, second = struct.unpack(">8I", header)
    order = _MAGIC.get(magic, "")
    whole = bool(order) and _sums(_words(content[None, : HEADER - 8], order))[0].tolist() == [first, second]
    size = size if whole else page_size
    step = FRAME_HEADER + size
    count = (len(content) - HEADER) // step
    frames = content[HEADER : HEADER + count * step].reshape(count, step)
    heads = frames[:, :FRAME_HEADER].copy().view(">u4").astype(np.uint32)
    salts = heads[:, 2:4]
    ours = (salts == (np.frombuffer(header[16:24], ">u4") if whole else salts[:1])).all(axis=1)
    before = np.concatenate([[[first, second]], heads[:-1, 4:6]]).astype(np.uint32)
    good = ours & _whole(frames, before, heads[:, 4:6], order or "<u4")
    if not whole and count:
        good[0] = ours[0] and (count == 1 or bool(good[1]))  # the sum before it was in the header
    commits = heads[:, 1] != 0
    return Log(size, heads[:, 0], commits, good, _damage(good, commits, whole=whole))


def _damage(good: NDArray[np.bool_], commits: NDArray[np.bool_], *, whole: bool) -> str:
    """Why this is no torn end: a transaction follows one that is not whole, and only what is synced is followed."""
    if not whole:
        return "the header of its write-ahead log is damaged" if good.any() else ""
    if good.all():
        return ""
    bad = int(np.argmin(good))
    followed = commits[bad:-1] & good[bad + 1 :]
    return f"frame {bad} of its write-ahead log is damaged" if followed.any() else ""


def _whole(
    frames: NDArray[np.uint8], before: NDArray[np.uint32], expected: NDArray[np.uint32], order: str
) -> NDArray[np.bool_]:
    """Which frames have the checksum that their header says, after the sum before them."""
    found = []
    for start in range(0, len(frames), _CHUNK):
        chunk = frames[start : start + _CHUNK]
        content = np.concatenate([chunk[:, :8], chunk[:, FRAME_HEADER:]], axis=1)
        found.append(_sums(_words(content, order), before[start : start + _CHUNK]))
    sums = np.concatenate(found) if found else np.zeros((0, 2), np.uint32)
    same: NDArray[np.bool_] = (sums == expected).all(axis=1)
    return same


def _words(content: NDArray[np.uint8], order: str) -> NDArray[np.uint32]:
    return np.ascontiguousarray(content).view(order).astype(np.uint32)


def _sums(words: NDArray[np.uint32], before: NDArray[np.uint32] | None = None) -> NDArray[np.uint32]:
    """SQLite's checksum of each row of words, after the sums `before`, (n, 2).

    A pair (x, y) of words makes (s, t) into (s + t + x, s + 2t + x + y), all modulo 2³²: a product with a matrix.
    """
    pairs = words.shape[1] // 2
    powers = np.zeros((pairs + 1, 3), np.uint32)  # the matrix is symmetric: a, b, d
    a, b, d = 1, 0, 1
    for i in range(pairs + 1):
        powers[i] = a, b, d
        a, b, d = (a + b) & 0xFFFFFFFF, (b + d) & 0xFFFFFFFF, (b + 2 * d) & 0xFFFFFFFF
    x = words[:, 0::2]
    y = x + words[:, 1::2]
    a_of, b_of, d_of = powers[pairs - 1 :: -1].T if pairs else powers[:0].T
    s = (x * a_of + y * b_of).sum(axis=1, dtype=np.uint32)
    t = (x * b_of + y * d_of).sum(axis=1, dtype=np.uint32)
    if before is not None:
        whole = powers[pairs]
        s = s + before[:, 0] * whole[0] + before[:, 1] * whole[1]
        t = t + before[:, 0] * whole[1] + before[:, 1] * whole[2]
    return np.stack([s, t], axis=1)
