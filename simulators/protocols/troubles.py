"""Bad habits of an OPC UA server, when their time has come."""

import asyncio
from collections.abc import Sequence

import structlog

from simulators.habits import SERVER_HABITS, Habit, cuts
from simulators.protocols.opcua_server import OpcUaServer

_SLOWER = 0.3  # s an answer, at severity 1

_log = structlog.get_logger()


class Troubles:
    """Starts and ends the habits of a server.

    Args:
        habits: of the scenario.
        server: None if there is none; then nothing happens.
    """

    def __init__(self, habits: Sequence[Habit], server: OpcUaServer | None) -> None:
        self._habits = [h for h in habits if h.kind in SERVER_HABITS] if server else []
        self._server = server
        self._cut: dict[Habit, int] = {}
        self._restarts = 0
        self._reached = 0
        self._acting = asyncio.Lock()

    async def come_to(self, since: int) -> None:
        """Simulated time is `since` ns after the beginning; a machine that lags behind others changes nothing."""
        if not self._habits or since <= self._reached > 0:
            return
        self._reached = since
        async with self._acting:
            for habit in self._habits:
                await self._act(habit, self._reached)

    async def _act(self, habit: Habit, since: int) -> None:
        server = self._server
        if server is None:
            return
        if habit.kind == "slow_server":
            server.delay = _SLOWER * habit.severity if habit.at(since) else 0.0
        elif habit.kind == "reconnect_storm":
            due = cuts(habit, since)
            if due > self._cut.get(habit, 0):
                self._cut[habit] = due
                _log.info("opcua_connections_cut", connections=server.drop_connections())
        elif habit.kind == "namespace_order":
            wanted = 1 if habit.at(since) else 0
            if wanted != self._restarts:
                self._restarts = wanted
                await server.restart(before=2 * wanted)
                _log.info("opcua_namespaces_moved", before=2 * wanted)
