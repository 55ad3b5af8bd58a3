"""The reader of the first store that can be queried, whichever that is at the time."""

from collections.abc import Callable
from typing import Any

from ingest.stores.base import Reader, StoreUnavailableError


class CurrentReader:
    """A `Reader` that hands every question to the one there is.

    Args:
        find: the reader there is; None if no store can be queried.
    """

    def __init__(self, find: Callable[[], Reader | None]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        reader = self._find()
        if reader is None:
            raise StoreUnavailableError("no store of this agent can be queried")
        return getattr(reader, name)
