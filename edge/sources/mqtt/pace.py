"""How long packets may gather before they are read.

A pass over the socket costs as much as a hundred messages, so it pays to have many in one; a reading that comes alone
gains nothing from waiting for others.
"""

_FEW = 16  # messages a pass that make up for a longer pause
_SHARE = 3  # how many times longer than the shortest it may be


class Pace:
    """Pauses between a third of `longest` while few messages come, and all of it while many do. Used by one thread.

    Args:
        longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self._shortest = longest / _SHARE
        self._factor = 1.0

    def pause(self) -> float:
        """How long to wait now, in seconds, from the first packet on."""
        return self._shortest * self._factor

    def took(self, messages: int) -> None:
        """Note how many messages the last pass had."""
        self._factor = min(max(messages / _FEW, 1.0), float(_SHARE))
