"""What must outlive the process about our session at the broker: which one it is, and its subscriptions."""

import os
import uuid
from pathlib import Path

import msgspec
import structlog

_log = structlog.get_logger()


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session at a broker, as the file in the data folder keeps it.

    Attributes:
        broker: the broker's URL.
        client_id: our client id.
        id: a new one for each session that the broker starts: message ids of another session mean other messages.
        filters: the filters that it may have, refused ones included.
        dropped: the broker's counter of messages that its queues dropped, as it was last told; -1: never.
    """

    broker: str = ""
    client_id: str = ""
    id: str = ""
    filters: tuple[str, ...] = ()
    dropped: int = -1


class SessionFile:
    """The session file of one source. It only helps: without it, at most a reading is stored twice at one timestamp.

    Args:
        path: the file.
        broker: the broker's URL.
        client_id: our client id.
    """

    def __init__(self, path: Path, broker: str, client_id: str) -> None:
        self._path = path
        self._fresh = Session(broker=broker, client_id=client_id)
        self.now = self._load()

    def _load(self) -> Session:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Session)
        except FileNotFoundError:
            found = self._fresh
        except (OSError, ValueError) as e:
            _log.warning("mqtt_session_file_unreadable", file=str(self._path), error=str(e))
            found = self._fresh
        ours = (found.broker, found.client_id) == (self._fresh.broker, self._fresh.client_id)
        return found if ours else self._fresh

    def connected(self, *, present: bool, filters: tuple[str, ...]) -> tuple[str, ...]:
        """Note that the broker answered; call it before anything is subscribed or read.

        Args:
            present: whether it kept our session.
            filters: what is subscribed to now.

        Returns:
            Filters that the session has kept and that are no longer wanted: to be unsubscribed.
        """
        known = self.now.filters if present else ()
        stale = tuple(each for each in known if each not in filters)
        identity = self.now.id if present and self.now.id else uuid.uuid4().hex
        kept = msgspec.structs.replace(self._fresh, dropped=self.now.dropped)
        self._save(msgspec.structs.replace(kept, id=identity, filters=(*filters, *stale)))
        return stale

    def dropped(self, total: int) -> None:
        """Note the broker's counter."""
        self._save(msgspec.structs.replace(self.now, dropped=total))

    def unsubscribed(self, stale: tuple[str, ...]) -> None:
        """Note that the broker has let go of `stale`."""
        kept = tuple(each for each in self.now.filters if each not in stale)
        self._save(msgspec.structs.replace(self.now, filters=kept))

    def _save(self, session: Session) -> None:
        """Keep `session`, also through a power cut; a file that is as it should be is not written."""
        if session == self.now and self._path.exists():
            return
        self.now = session
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(".new")
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(session))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as e:
            _log.warning("mqtt_session_file_not_written", file=str(self._path), error=str(e))
