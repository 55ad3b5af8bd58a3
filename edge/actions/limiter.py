"""At most so many in a sliding window."""

import re
from typing import Final

import msgspec

MOST_A_MINUTE: Final = 60
MOST_A_WINDOW: Final = 600
_UNITS: Final = {"s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_MINUTE: Final = 60 * 10**9


class Limit(msgspec.Struct, frozen=True):
    """`count` in any `window` of ns, and in any case at most 60 in any minute."""

    count: int
    window: int

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read `6/h`, `1/10min`, `2/s`.

        Raises:
            ValueError: if it is not understood, or allows more than 60 a minute or 600 a window.
        """
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{0,6})\s*(s|min|h|d)\s*", text)
        if match is None or int(match[1]) == 0 or match[2].strip("0") == "" != match[2]:
            raise ValueError(f"{text!r} is not understood; write it as 6/h, 1/10min or 1/s")
        limit = cls(int(match[1]), int(match[2] or 1) * _UNITS[match[3]])
        if limit.count > MOST_A_WINDOW or limit.count * _MINUTE > MOST_A_MINUTE * limit.window:
            raise ValueError(f"{text!r} is too much: at most {MOST_A_MINUTE} a minute, and {MOST_A_WINDOW} in a window")
        return limit


class Limiter:
    """Who may go on at a given time. Its `times` are its whole state.

    Args:
        limit: see there.
        times: when it was used, ns, ascending; of an earlier run.
    """

    def __init__(self, limit: Limit, times: tuple[int, ...] = ()) -> None:
        self._limit = limit
        self.times = times[-MOST_A_WINDOW:]

    def take(self, now: int) -> bool:
        """Whether there is room at `now`; if so, it is used. A clock that was set back gives no room."""
        in_window = sum(now - t < self._limit.window for t in self.times)
        in_minute = sum(now - t < _MINUTE for t in self.times)
        if in_window >= self._limit.count or in_minute >= MOST_A_MINUTE:
            return False
        self.times = (*self.times, now)[-MOST_A_WINDOW:]  # none is forgotten by its age: the clock may be set back
        return True
