"""Which gaps a broker leaves: while it is lost or the agent does not run, and where messages never came."""

import time
from collections.abc import Iterable

from edge.sources.base import Over, Sink
from edge.sources.mqtt.keeper import Hole

_KEPT = "the broker had kept the session; what its queue limit dropped it does not say"
_NOT_KEPT = "the broker had not kept the session"
_CLEAN = "a clean session: the broker kept nothing for us"
_SHARED = "a shared subscription: another agent may have them"


class ConnectionGaps:
    """Opens and ends the gaps of one source. Used by its thread.

    A persistent session that is still there closes them, as everything comes that was published at QoS 1 meanwhile;
    signals that are counted from their receipt stay unverifiable.

    Args:
        source: its name.
        sink: where they are noted.
        clean: whether its sessions are clean ones.
        shared: whether it has a shared subscription.
    """

    def __init__(self, source: str, sink: Sink, *, clean: bool, shared: bool) -> None:
        self._source = source
        self._sink = sink
        self._clean = clean
        self._shared = shared
        self._open = False

    def started(self) -> None:
        """The agent was not here since the newest readings that the journal knows."""
        last = self._sink.last_times(self._sink.signals_of(self._source))
        if last:
            self._sink.open_gap(self._source, "agent_down", last)
            self._open = True

    def lost(self, last_data: int, reason: str) -> None:
        """The connection was lost. Call it before the points that say so are given to the journal.

        Args:
            last_data: when the broker's last message arrived, ns: before that nothing is missing.
            reason: in words.
        """
        last = self._sink.last_times(self._sink.signals_of(self._source))
        if last:
            since = {signal: max(newest, last_data) for signal, newest in last.items()}
            self._sink.open_gap(self._source, "source_down", since, detail=reason)
            self._open = True

    def missing(self, holes: Iterable[Hole]) -> None:
        """Messages never came, as the numbers of those around them show."""
        for hole in holes:
            spans = {signal: (hole.start, max(hole.end, hole.start + 1)) for signal in hole.signals}
            self._sink.note_gap(
                self._source, "notification_lost", spans, state=hole.state, lost=hole.lost, detail=hole.detail
            )

    def resumed(self, *, present: bool) -> None:
        """The broker has answered the subscriptions; `present`: it had kept our session."""
        if not self._open:
            return
        self._open = False
        state: Over
        if self._shared:
            state, detail = "unverifiable", _SHARED
        elif self._clean:
            state, detail = "unverifiable", _CLEAN
        elif present:
            state, detail = "closed", _KEPT
        else:
            state, detail = "ended", _NOT_KEPT
        now = time.time_ns()
        self._sink.end_gap(self._source, now, state=state, cause="agent_down", detail=detail)
        self._sink.end_gap(self._source, now, state=state, cause="source_down", detail=detail)
