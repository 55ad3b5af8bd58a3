"""An OPC UA server with the signals of many machines, on asyncua.

Nodes are `nsu=urn:fieldlab:sim;s=<machine>.<signal>` in an object a machine. A node is BadWaitingForInitialData until
its first reading. Clients may read and subscribe, and change nothing. It offers None and Basic256Sha256
SignAndEncrypt, with a certificate made at start.

A reading is written straight into asyncua's address space: its own write path checks every value and dispatches two
events, which a simulator that owns its nodes does not need.
"""

import asyncio
import datetime as dt
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import structlog
from asyncua import ua
from asyncua.common.node import Node
from asyncua.crypto import cert_gen
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.server.address_space import AttributeValue
from asyncua.server.history import HistoryDict
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from simulators.machines import Reading, Signal

NAMESPACE = "urn:fieldlab:sim"
APPLICATION = "urn:fieldlab:sim:server"
UNECE = "http://www.opcfoundation.org/UA/units/un/cefact"
UNITS = {"%": "P1", "mm": "MMT", "°C": "CEL", "A": "AMP", "s": "SEC", "mm/s": "C16"}  # UNECE Recommendation 20

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_GOOD = ua.StatusCode()
_REFUSED = {
    ua.NodeId(ua.Int32(number))
    for number in (
        ObjectIds.AddNodesRequest_Encoding_DefaultBinary,
        ObjectIds.DeleteNodesRequest_Encoding_DefaultBinary,
        ObjectIds.AddReferencesRequest_Encoding_DefaultBinary,
        ObjectIds.DeleteReferencesRequest_Encoding_DefaultBinary,
        ObjectIds.RegisterServerRequest_Encoding_DefaultBinary,
        ObjectIds.RegisterServer2Request_Encoding_DefaultBinary,
        ObjectIds.HistoryUpdateRequest_Encoding_DefaultBinary,
    )
}

_log = structlog.get_logger()


class _Visitors(UserManager):
    """asyncua's user manager: everybody is a user, or who has one of the passwords; nobody is an administrator."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users

    @property
    def named(self) -> bool:
        """Whether one must have a name."""
        return bool(self._users)

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002  asyncua's signature
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,  # noqa: ARG002  asyncua's signature
    ) -> User | None:
        if self._users:
            known = self._users.get(username or "")
            if known is None or not secrets.compare_digest(known.encode(), (password or "").encode()):
                return None
        return User(role=UserRole.User)


class _ReadOnly(SimpleRoleRuleset):
    """Refuses requests that change the address space; a write of a value fails with its own status."""

    def check_validity(self, user: User, action_type: ua.NodeId, body: Any) -> bool:  # noqa: ARG002  asyncua's signature
        return action_type not in _REFUSED


class _Value(ua.DataValue):
    """A value that nobody changes: asyncua copies each one, deeply, for each subscriber: two thirds of its work."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class OpcUaServer:
    """Serves the signals of machines.

    Args:
        machines: machine → its signals.
        host: where to listen.
        port: TCP port; 0 takes a free one.
        certificate_days: how long its certificate is valid.
        users: name → password of those who may come in; none: everybody may, also without a name.
        history: how many of its last readings each number keeps, to be read as raw history.

    Attributes:
        url: where it listens, once started.
        delay: s that each answer takes longer.
        notify_errors: values that a subscription of asyncua could not take.
    """

    def __init__(
        self,
        machines: Mapping[str, Iterable[Signal]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate_days: int = 365,
        users: Mapping[str, str] | None = None,
        history: int = 0,
    ) -> None:
        self._machines = {name: tuple(signals) for name, signals in machines.items()}
        self._host, self._port = host, port
        self._certificate = _certificate(certificate_days)
        self._writing = asyncio.Lock()
        self._visitors = _Visitors(dict(users or {}))
        self._history = history
        self._storage = HistoryDict()
        self._kept: dict[tuple[str, str], ua.NodeId] = {}  # what has a history
        self._server = Server(user_manager=self._visitors)
        self._cells: dict[tuple[str, str], tuple[AttributeValue, bool]] = {}
        self.url = ""
        self.notify_errors = 0
        self.delay = 0.0

    async def start(self) -> None:
        """Make the nodes and listen.

        Raises:
            OSError: if the port is taken.
        """
        await self._start(self._port or _free_port(), before=0)

    async def restart(self, before: int) -> None:
        """Start anew with the values it had, on the same port, with so many namespaces of others before ours."""
        async with self._writing:
            await self.stop()
            self._server = Server(user_manager=self._visitors)
            self._storage = HistoryDict()
            self._kept = {}
            before_it, self._cells = self._cells, {}
            await self._start(int(self.url.rpartition(":")[2]), before)
            for key, (cell, _) in before_it.items():
                self._cells[key][0].value = cell.value

    def drop_connections(self) -> int:
        """Cut every connection, without a word: how many."""
        inner = self._server.bserver
        clients = list(inner.clients) if inner else []
        for client in clients:
            if client.transport:
                client.transport.abort()
        return len(clients)

    async def _start(self, port: int, before: int) -> None:
        server = self._server
        await server.init()
        server.set_server_name("Fieldlab simulated machines")
        await server.set_application_uri(APPLICATION)
        certificate, key = self._certificate
        await server.load_certificate(certificate, "der")
        await server.load_private_key(key, None, "pem")
        ruleset = _ReadOnly()  # type: ignore[no-untyped-call]  # asyncua leaves its constructor untyped
        server.set_security_policy(
            [ua.SecurityPolicyType.NoSecurity, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt], ruleset
        )
        for number in range(before):
            await server.register_namespace(f"urn:fieldlab:other-{number + 1}")
        namespace = await server.register_namespace(NAMESPACE)
        for machine, signals in self._machines.items():
            await self._add_machine(namespace, machine, signals)
        if self._history:
            server.iserver.history_manager.set_storage(self._storage)
        if self._visitors.named:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        _slow_sessions(server, lambda: self.delay)
        server.set_endpoint(f"opc.tcp://{self._host}:{port}")
        await server.start()
        self.url = f"opc.tcp://{self._host}:{port}"
        _log.info("opcua_server_started", url=self.url, signals=len(self._cells))

    async def stop(self) -> None:
        """Close every session and stop listening."""
        inner = self._server.iserver
        if inner.time_task:  # else asyncua waits for its clock, which sleeps a second
            inner.time_task.cancel()
            inner.time_task = None
        await self._server.stop()

    async def write(self, machine: str, readings: Iterable[Reading], *, silent: bool = False) -> list[Reading]:
        """Write readings of one machine, in order; their times become the SourceTimestamps.

        Returns:
            What was written. A reading that repeats the node's value and status is left out: by the standard's default
            trigger (StatusValue) no subscriber would hear of it. With `silent` no subscriber hears of anything.
        """
        async with self._writing:
            return await self._write(machine, readings, silent)

    async def _write(self, machine: str, readings: Iterable[Reading], silent: bool) -> list[Reading]:
        written: list[Reading] = []
        now: Any = dt.datetime.now(dt.UTC)  # asyncua's DateTime is a datetime, but not for mypy
        stamps: dict[int, Any] = {}
        for reading in readings:
            cell, is_text = self._cells[machine, reading.signal]
            source: Any = stamps.get(reading.ts)
            if source is None:
                source = stamps[reading.ts] = _EPOCH + dt.timedelta(microseconds=reading.ts // 1000)
            status = _GOOD if reading.status == 0 else ua.StatusCode(ua.UInt32(reading.status))
            bad = bool(reading.status & 0x80000000)
            variant = ua.Variant(
                None if bad else reading.value, _variant_type(bad, is_text or isinstance(reading.value, str))
            )
            old = cell.value
            if old is not None and old.StatusCode == status and old.Value == variant:
                continue
            value = _Value(variant, status, source if reading.timed else None, now)
            cell.value = value
            kept = self._kept.get((machine, reading.signal))
            if kept is not None:
                await self._storage.save_node_value(kept, value)
            if silent:
                continue
            for handle, notify in tuple(cell.datachange_callbacks.items()):
                try:
                    await notify(handle, value)
                except Exception as e:  # noqa: BLE001  one subscriber's trouble must not stop the machine
                    self.notify_errors += 1
                    _log.warning("opcua_notify_failed", machine=machine, signal=reading.signal, error=repr(e))
            written.append(reading)
        return written

    async def _add_machine(self, namespace: int, machine: str, signals: Iterable[Signal]) -> None:
        folder = await self._server.nodes.objects.add_object(_node(machine, namespace), f"{namespace}:{machine}")
        now: Any = dt.datetime.now(dt.UTC)  # as in `write`
        waiting = ua.DataValue(
            ua.Variant(None, ua.VariantType.Null),
            ua.StatusCode(ua.UInt32(StatusCodes.BadWaitingForInitialData)),
            now,
            now,
        )
        for signal in signals:
            is_text = signal.kind in ("text", "state")
            name = f"{machine}.{signal.name}"
            kind = _variant_type(bad=False, is_text=is_text)
            node = await folder.add_variable(
                _node(name, namespace), f"{namespace}:{signal.name}", "" if is_text else 0.0, kind
            )
            if signal.about:
                about = ua.DataValue(ua.Variant(ua.LocalizedText(signal.about)))
                await node.write_attribute(AttributeIds.Description, about)
            if signal.low is not None and signal.high is not None:
                span = ua.Range(Low=signal.low, High=signal.high)
                await node.add_property(_node(f"{name}.EURange", namespace), "0:EURange", span)
            if signal.unit in UNITS:
                unit = ua.EUInformation(
                    NamespaceUri=UNECE,
                    UnitId=ua.Int32(int.from_bytes(UNITS[signal.unit].encode(), "big")),
                    DisplayName=ua.LocalizedText(signal.unit),
                    Description=ua.LocalizedText(signal.unit),
                )
                await node.add_property(_node(f"{name}.EngineeringUnits", namespace), "0:EngineeringUnits", unit)
            if self._history and not is_text:
                await self._keep(machine, signal.name, node)
            cell = self._server.iserver.aspace[node.nodeid].attributes[AttributeIds.Value]
            cell.value = waiting
            self._cells[machine, signal.name] = (cell, is_text)

    async def _keep(self, machine: str, signal: str, node: Node) -> None:
        """Let a node have a history."""
        await node.write_attribute(AttributeIds.Historizing, ua.DataValue(ua.Variant(True, ua.VariantType.Boolean)))
        await node.set_attr_bit(AttributeIds.AccessLevel, ua.AccessLevel.HistoryRead)
        await node.set_attr_bit(AttributeIds.UserAccessLevel, ua.AccessLevel.HistoryRead)
        await self._storage.new_historized_node(node.nodeid, None, self._history)
        self._kept[machine, signal] = node.nodeid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def _node(name: str, namespace: int) -> ua.NodeId:
    return ua.NodeId(name, namespace)  # type: ignore[arg-type]  # asyncua takes plain str and int


def _variant_type(bad: bool, is_text: bool) -> ua.VariantType:
    if bad:
        return ua.VariantType.Null
    return ua.VariantType.String if is_text else ua.VariantType.Double


def _slow_sessions(server: Server, delay: Callable[[], float]) -> None:
    """Let each answer of a session take so many seconds longer."""
    make = server.iserver.create_session

    def slow(session: Any, name: str) -> None:
        answer = getattr(session, name)

        async def later(*arguments: Any, **options: Any) -> Any:
            if delay() > 0:
                await asyncio.sleep(delay())
            return await answer(*arguments, **options)

        setattr(session, name, later)

    def create(*arguments: Any, **options: Any) -> Any:
        session = make(*arguments, **options)
        for name in ("read", "browse", "create_subscription", "create_monitored_items"):
            slow(session, name)
        return session

    server.iserver.create_session = create  # type: ignore[method-assign]  # asyncua offers no hook for this


def _certificate(days: int) -> tuple[bytes, bytes]:
    """A self-signed application certificate (DER) and its key (PEM), for this server and this run."""
    key = cert_gen.generate_private_key()
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(APPLICATION),
        x509.DNSName("localhost"),
        x509.DNSName(socket.gethostname()),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = cert_gen.generate_self_signed_app_certificate(
        key,
        "Fieldlab simulated machines",
        {"organizationName": "Fieldlab"},
        names,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        days=days,
    )
    return certificate.public_bytes(Encoding.DER), cert_gen.dump_private_key_as_pem(key)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port
