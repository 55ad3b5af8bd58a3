"""The OPC UA server, read by asyncua's client: times, statuses, security, and no writing."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto import cert_gen, security_policies
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from simulators.machines import MACHINES, Reading
from simulators.protocols.opcua_server import NAMESPACE, OpcUaServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:asyncua.*")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NS = 1_763_900_000_123_456_000
UNCERTAIN, BAD_SENSOR = 0x40940000, 0x808D0000


class Heard:
    """What a subscription delivered: (node, ns, value, status)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, Any, int]] = []

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        self.rows.append((str(node.nodeid.Identifier), *_row(data.monitored_item.Value)))


def _row(value: ua.DataValue) -> tuple[int, Any, int]:
    stamp: Any = value.SourceTimestamp
    assert stamp is not None
    assert value.Value is not None
    assert value.StatusCode is not None
    ns = (stamp.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1) * 1000
    return ns, value.Value.Value, value.StatusCode.value


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def server(loop: asyncio.Runner) -> Iterator[OpcUaServer]:
    made = OpcUaServer({"cnc-07": MACHINES["cnc_mill"].SIGNALS, "robot-03": MACHINES["robot"].SIGNALS})
    loop.run(made.start())
    yield made
    loop.run(made.stop())


async def node(client: Client, name: str) -> Node:
    index = await client.get_namespace_index(NAMESPACE)
    return client.get_node(f"ns={index};s={name}")


def test_a_subscriber_hears_every_reading_with_its_time_and_status(
    loop: asyncio.Runner, server: OpcUaServer, wait_until: Callable[..., Any]
) -> None:
    made = (
        MACHINES["robot"]("robot-03", seed=1, start=NS, sample_period=10**7, cycle=10**8, parts=20).step(2**62).readings
    )
    made.append(Reading("cycle_time", NS + 10**12, 1.0, UNCERTAIN))
    made.append(Reading("cycle_time", NS + 2 * 10**12, 1.0, BAD_SENSOR))
    made.append(Reading("cycle_time", NS + 3 * 10**12, 1.0))

    async def go() -> tuple[list[Reading], list[tuple[str, int, Any, int]]]:
        heard = Heard()
        async with Client(server.url) as client:
            subscription = await client.create_subscription(20, heard)
            nodes = [await node(client, f"robot-03.{s.name}") for s in MACHINES["robot"].SIGNALS]
            await subscription.subscribe_data_change(nodes, queuesize=10_000)
            written = await server.write("robot-03", made)
            await asyncio.to_thread(wait_until, lambda: len(heard.rows) >= len(written) + len(nodes))
        return written, heard.rows

    written, rows = loop.run(go())
    assert written == made, "nothing repeats itself in a machine's readings"
    first = [row for row in rows if row[3] == StatusCodes.BadWaitingForInitialData]
    rest = [row for row in rows if row not in first]
    assert [name for name, *_ in first] == [f"robot-03.{s.name}" for s in MACHINES["robot"].SIGNALS]
    assert all(value is None for _, _, value, _ in first)
    expected = {(f"robot-03.{r.signal}", r.ts, None if r.status == BAD_SENSOR else r.value, r.status) for r in made}
    assert len(rest) == len(expected)
    assert set(rest) == expected


def test_a_reading_that_repeats_the_last_is_not_said_to_be_sent(loop: asyncio.Runner, server: OpcUaServer) -> None:
    same = [
        Reading("tool_id", NS, "T01"),
        Reading("tool_id", NS + 10**9, "T01"),
        Reading("tool_id", NS + 2 * 10**9, "T02"),
    ]
    assert loop.run(server.write("cnc-07", same)) == [same[0], same[2]]


def test_nodes_have_units_ranges_and_words(loop: asyncio.Runner, server: OpcUaServer) -> None:
    async def go() -> None:
        async with Client(server.url) as client:
            load = await node(client, "cnc-07.spindle_load")
            status = (await load.read_data_value(raise_on_bad_status=False)).StatusCode
            assert status == ua.StatusCode(ua.UInt32(StatusCodes.BadWaitingForInitialData))
            unit = await (await load.get_child("0:EngineeringUnits")).read_value()
            assert (unit.DisplayName.Text, unit.UnitId) == ("%", 20529)  # "P1", UNECE Recommendation 20
            span = await (await load.get_child("0:EURange")).read_value()
            assert (span.Low, span.High) == (0.0, 120.0)
            assert (await load.read_description()).Text == "load of the spindle's drive"
            assert await load.read_data_type_as_variant_type() == ua.VariantType.Double
            machine = await node(client, "cnc-07")
            names = {(await c.read_browse_name()).Name for c in await machine.get_children()}
            assert names == {s.name for s in MACHINES["cnc_mill"].SIGNALS}

    loop.run(go())


def test_clients_change_nothing(loop: asyncio.Runner, server: OpcUaServer) -> None:
    async def go() -> None:
        for user in ("", "admin"):
            client = Client(server.url)
            if user:
                client.set_user(user)
                client.set_password("whatever")
            async with client:
                diameter = await node(client, "cnc-07.diameter")
                with pytest.raises(UaStatusCodeError) as refused:
                    await diameter.write_value(99.0)
                assert refused.value.code in (
                    StatusCodes.BadUserAccessDenied,
                    StatusCodes.BadNotWritable,
                )
                with pytest.raises(UaStatusCodeError):
                    await client.nodes.objects.add_variable(diameter.nodeid.NamespaceIndex, "mine", 1.0)
                with pytest.raises(UaStatusCodeError):
                    await client.delete_nodes([diameter])

    loop.run(go())


def test_it_offers_none_and_basic256sha256_and_the_latter_works(
    loop: asyncio.Runner, server: OpcUaServer, tmp_path: Path
) -> None:
    key = cert_gen.generate_private_key()
    uri = "urn:fieldlab:test"
    certificate = cert_gen.generate_self_signed_app_certificate(
        key, "test", {}, [x509.UniformResourceIdentifier(uri)], [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    (tmp_path / "c.der").write_bytes(certificate.public_bytes(Encoding.DER))
    (tmp_path / "k.pem").write_bytes(cert_gen.dump_private_key_as_pem(key))

    async def go() -> None:
        client = Client(server.url)
        client.application_uri = uri
        endpoints = await client.connect_and_get_server_endpoints()
        offered = {(e.SecurityPolicyUri.rpartition("#")[2], e.SecurityMode.name) for e in endpoints}
        assert offered == {("None", "None_"), ("Basic256Sha256", "SignAndEncrypt")}
        await client.set_security(
            security_policies.SecurityPolicyBasic256Sha256,
            certificate=str(tmp_path / "c.der"),
            private_key=str(tmp_path / "k.pem"),
            mode=ua.MessageSecurityMode.SignAndEncrypt,
        )
        async with client:
            await server.write("cnc-07", [Reading("vibration", NS, 1.25)])
            value = await (await node(client, "cnc-07.vibration")).read_data_value()
            assert _row(value) == (NS, 1.25, 0)

    loop.run(go())


def test_a_port_that_is_taken_is_an_error(loop: asyncio.Runner, server: OpcUaServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        loop.run(OpcUaServer({}, port=port).start())


def test_who_may_come_in_and_what_the_history_keeps(loop: asyncio.Runner, tmp_path: Path) -> None:
    async def go() -> None:
        signals = {"cnc-07": MACHINES["cnc_mill"].SIGNALS}
        async with OpcUaServer(signals, users={"reader": "s3cret"}, history=5) as server:
            for user, password in (("", ""), ("reader", "wrong"), ("reader", ""), ("other", "s3cret")):
                client = Client(server.url)
                if user:
                    client.set_user(user)
                    client.set_password(password)
                with pytest.raises(UaStatusCodeError) as refused:
                    async with client:
                        pass
                assert refused.value.code in (
                    StatusCodes.BadUserAccessDenied,
                    StatusCodes.BadIdentityTokenRejected,
                ), (user, password)
            sent = [Reading("diameter", NS + i * 10**9, 25.0 + i) for i in range(8)]
            await server.write("cnc-07", sent)
            client = Client(server.url)
            client.set_user("reader")
            client.set_password("s3cret")
            async with client:
                kept = await (await node(client, "cnc-07.diameter")).read_raw_history(EPOCH, dt.datetime.now(dt.UTC))
                assert [_row(v)[:2] for v in kept] == [(r.ts, r.value) for r in sent[-5:]]

    loop.run(go())
