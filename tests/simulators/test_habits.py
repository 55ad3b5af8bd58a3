"""Bad habits: of readings, the same at any speed; of the OPC UA server, as a client feels them."""

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509

from simulators.habits import READING_HABITS, SERVER_HABITS, Habit, ReadingHabits, cuts
from simulators.machines import MACHINES, Reading
from simulators.protocols.opcua_server import NAMESPACE, OpcUaServer
from simulators.protocols.troubles import Troubles

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:asyncua.*")
S = 1_000_000_000
START = 1_763_900_000 * S
SENT = [Reading("a", START + n * S // 2, float(n)) for n in range(400)]


def applied(kind: str, severity: float = 1.0, pieces: int = 7, **options: Any) -> list[Reading]:
    habit = Habit(kind=kind, severity=severity, start=50 * S, end=150 * S, **options)
    habits = ReadingHabits([habit], "m-1", 5, START)
    sent: list[Reading] = []
    for i in range(0, len(SENT), pieces):
        piece = SENT[i : i + pieces]
        sent += habits.apply(piece, piece[-1].ts)
    return sent + habits.flush()


def within(readings: Sequence[Reading]) -> list[Reading]:
    return [r for r in readings if 50 * S <= r.ts - START < 150 * S]


@pytest.mark.parametrize("kind", READING_HABITS)
def test_a_habit_acts_while_it_lasts_and_not_otherwise(kind: str) -> None:
    sent = applied(kind)
    assert sent == applied(kind, pieces=1) == applied(kind, pieces=400), "how time is cut changes nothing"
    assert sent != SENT
    outside = [r for r in SENT if r not in within(SENT)]
    assert [r for r in sent if r in outside] == outside
    assert applied(kind, machine="other-*") == SENT


def test_each_habit_does_what_its_words_say() -> None:
    bad = [r for r in applied("bad_storm") if r.status]
    assert {r.status for r in bad} == {StatusCodes.BadSensorFailure}
    assert 70 <= len(bad) <= 130, "a half of 200"
    doubtful = [r for r in applied("uncertain_storm", 0.5) if r.status]
    assert {r.status for r in doubtful} == {StatusCodes.UncertainSensorNotAccurate}
    assert 25 <= len(doubtful) <= 80, "a quarter of 200"
    ahead = [r for r in applied("wrong_clock") if r not in SENT]
    assert [r.ts - 90 * S for r in ahead] == [r.ts for r in within(SENT)]
    assert [r.timed for r in within(applied("missing_time"))] == [False] * 200
    twice = applied("duplicates")
    copies = [r for r in twice if r.copy]
    assert 70 <= len(copies) <= 130
    assert [r for r in twice if not r.copy] == SENT
    assert all(twice[i - 1] == r._replace(copy=False) for i, r in enumerate(twice) if r.copy)
    late = applied("late")
    assert sorted(late) == sorted(SENT), "nothing is lost"
    behind = [r for i, r in enumerate(late) if i and r.ts < late[i - 1].ts]
    assert 30 <= len(behind) <= 70, "a quarter of 200"
    assert [r.value for r in within(applied("type_change"))] == [repr(r.value) for r in within(SENT)]
    assert within(applied("silence")) == []


def test_a_reconnect_storm_cuts_again_and_again() -> None:
    storm = Habit(kind="reconnect_storm", start=10 * S, end=15 * S, severity=0.5)
    assert [cuts(storm, n * S) for n in (0, 9, 10, 11, 14, 15, 60)] == [0, 0, 1, 2, 5, 6, 6]


def test_the_server_moves_its_namespaces_crawls_and_cuts(wait_until: Callable[..., Any]) -> None:
    habits = [
        Habit(kind="namespace_order", start=1 * S, end=2 * S),
        Habit(kind="slow_server", start=2 * S, end=3 * S),
        Habit(kind="reconnect_storm", start=3 * S),
    ]
    assert {h.kind for h in habits} | {"expiring_certificate"} == set(SERVER_HABITS)

    async def go() -> None:
        loop = asyncio.get_running_loop()
        server = OpcUaServer({"cnc-07": MACHINES["cnc_mill"].SIGNALS}, certificate_days=1)
        await server.start()
        troubles = Troubles(habits, server)
        indexes = []
        for since in (0, 1 * S, 2 * S):
            await troubles.come_to(since)
            async with Client(server.url) as client:
                indexes.append(await client.get_namespace_index(NAMESPACE))
                await server.write("cnc-07", [Reading("diameter", START + since, 25.0 + since)])
                node = client.get_node(f"ns={indexes[-1]};s=cnc-07.diameter")
                begun = loop.time()
                assert await node.read_value() == 25.0 + since
                assert (loop.time() - begun >= 0.3) == (since == 2 * S)
        assert indexes[0] == indexes[2] == indexes[1] - 2
        client = Client(server.url)
        (endpoint, *_) = await client.connect_and_get_server_endpoints()
        ends = x509.load_der_x509_certificate(endpoint.ServerCertificate).not_valid_after_utc
        assert ends - dt.datetime.now(dt.UTC) < dt.timedelta(days=1)
        lost = asyncio.Event()

        async def gone(_: Exception) -> None:
            lost.set()

        client = Client(server.url)
        client.connection_lost_callback = gone
        await client.connect()
        await troubles.come_to(3 * S)
        assert server.delay == 0.0
        await asyncio.wait_for(lost.wait(), 20)
        async with Client(server.url) as again:
            assert await again.get_namespace_index(NAMESPACE) == indexes[0]
        await server.stop()

    asyncio.run(go())


def test_a_reading_may_come_without_its_time_or_as_text() -> None:
    async def go() -> list[ua.DataValue]:
        async with OpcUaServer({"cnc-07": MACHINES["cnc_mill"].SIGNALS}) as server, Client(server.url) as client:
            index = await client.get_namespace_index(NAMESPACE)
            node = client.get_node(f"ns={index};s=cnc-07.diameter")
            found = []
            for reading in (Reading("diameter", START, 25.0, timed=False), Reading("diameter", START, "25.5")):
                await server.write("cnc-07", [reading])
                found.append(await node.read_data_value())
            return found

    untimed, text = asyncio.run(go())
    assert (untimed.SourceTimestamp, untimed.Value and untimed.Value.Value) == (None, 25.0)
    assert text.Value is not None
    assert (text.Value.Value, text.Value.VariantType) == ("25.5", ua.VariantType.String)
