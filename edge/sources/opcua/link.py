"""A connection to one server: endpoint, security, session, and the renewal of its channel."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.shortcuts import Shortcuts
from asyncua.ua import uaerrors
from cryptography import x509

from edge.sources.base import SourceContext
from edge.sources.opcua import certificates, security
from edge.sources.opcua.config import OpcuaConfig, read_password
from edge.sources.opcua.held import Held, node_of
from edge.sources.opcua.security import read_user
from edge.sources.opcua.session import Acknowledgements, Gaps, PublishSession, Receipt

log = structlog.get_logger()
logging.getLogger("asyncua").setLevel(logging.WARNING)  # at INFO it logs whole messages
logging.getLogger("asyncua.client.ua_client").setLevel(logging.CRITICAL)  # what it warns of is raised too: we say it

SESSION_TIMEOUT_MS: Final = 60_000
_RENEW_AT: Final = 0.75  # of the channel's lifetime, OPC 10000-4, 5.6.2.1


class SessionClient(Client):
    """asyncua's client, with what a session needs to be resumed on another connection."""

    @property
    def nonce(self) -> bytes | None:
        """What the server wants to see signed at the next activation."""
        found: bytes | None = self._server_nonce
        return found

    def go_on_with(self, nonce: bytes | None, policies: Sequence[ua.UserTokenPolicy]) -> None:
        """Take these from an earlier session, or None and what the endpoint says."""
        self._server_nonce = nonce  # type: ignore[assignment]  # asyncua itself puts bytes there
        self._policy_ids = list(policies)


class NotResumedError(ConnectionError):
    """The server broke off, or said nothing, when it was to resume a session."""


class Link:
    """An open connection.

    Attributes:
        client: asyncua's client, for services.
        session: our session.
        choice: the security in use.
        server_certificate: the server's certificate, if there is one.
        first_use: whether the server was trusted only now.
        resumed: whether the session is one of before.
        identity: our certificate, if there is one.
    """

    def __init__(
        self,
        client: SessionClient,
        session: PublishSession,
        choice: security.Choice,
        server_certificate: x509.Certificate | None,
        *,
        first_use: bool,
        resumed: bool = False,
        identity: certificates.Identity | None = None,
    ) -> None:
        self.client = client
        self.session = session
        self.choice = choice
        self.server_certificate = server_certificate
        self.first_use = first_use
        self.resumed = resumed
        self.identity = identity
        self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            while True:
                await asyncio.sleep(self.client.secure_channel_timeout / 1000 * _RENEW_AT)
                await self.client.open_secure_channel(renew=True)
                self.client.uaclient.revolve_security_token()
        except (uaerrors.UaError, OSError, TimeoutError) as e:
            self.session.lose(e)

    async def close(self, *, keep_subscriptions: bool, within: float) -> None:
        """End the session in good order, or drop the connection after `within` seconds.

        With `keep_subscriptions` the session stays at the server until its timeout, so that it can be resumed.
        """
        self._renewal.cancel()
        try:
            async with asyncio.timeout(within):
                if keep_subscriptions:
                    await self.session.acknowledge()
                else:
                    await self.session.close_session(delete_subscriptions=True)
                await self.client.close_secure_channel()
        except (uaerrors.UaError, OSError, TimeoutError) as e:
            log.debug("opcua_close_failed", error=str(e))
        await self.drop()

    async def drop(self) -> None:
        """Close the socket without a word."""
        self._renewal.cancel()
        await self.session.stop_pumps()
        self.client.disconnect_socket()


async def open_link(
    config: OpcuaConfig,
    context: SourceContext,
    receive: Callable[[bytes], Receipt | None],
    *,
    pin: bool = True,
    acknowledgements: Acknowledgements | None = None,
    gaps: Gaps | None = None,
    held: Held | None = None,
) -> Link:
    """Connect as configured.

    Args:
        config: the source.
        context: the agent.
        receive: takes the body of every PublishResponse.
        pin: whether to remember the server's certificate; `check` only compares.
        acknowledgements: of earlier sessions.
        gaps: who fetches notifications that never came.
        held: the session to resume, if the server still has it.

    Raises:
        SecurityRefusedError: if the server offers too little or shows another certificate.
        OSError, TimeoutError, uaerrors.UaError: if it cannot be reached or refuses us; see `reason`.
    """
    wanted = security.parse_choice(config.security)
    folder = context.data / "certificates"
    client = SessionClient(config.url, timeout=config.timeout)
    client.description = f"fieldlab {context.agent} {context.name}"
    client.name = client.description
    client.session_timeout = SESSION_TIMEOUT_MS
    offered = security.offers(await client.connect_and_get_server_endpoints())
    pin_file = certificates.pin_path(folder, config.url)
    pinned = None if wanted == security.Choice() else certificates.read_pin(pin_file)
    choice = security.choose(config.url, wanted, offered, pinned, pin_file)
    certificate = identity = None
    fingerprint = ""
    if choice.policy:
        identity = certificates.load_identity(folder, context.agent, config.url)
        der = _first(offered[choice].ServerCertificate)
        fingerprint = certificates.verify(
            config.url, der, pinned, folder, listed=config.trust == "listed", security=choice.text
        )
        certificate = x509.load_der_x509_certificate(der)
        certificates.check_time(config.url, certificate, identity)
        client.application_uri = identity.uri
        _secure(client, choice, identity, certificate)
    if config.username:
        client.set_user(config.username)
        client.set_password(read_password(config))
    session = PublishSession(client.uaclient, config.publish_requests, receive, acknowledgements, gaps)
    client.uaclient.session = session
    client.nodes = Shortcuts(session)
    try:
        await client.connect_socket()
        await client.send_hello()
        await _open_channel(client, config.url, identity)
        policies = offered[choice].UserIdentityTokens
        resumed = held is not None and await _resume(client, session, config, held, policies)
        if not resumed:
            await client.create_session()
            await _activate(client, config)
    except BaseException as e:
        client.disconnect_socket()
        if identity is not None and not isinstance(e, asyncio.CancelledError | TimeoutError):
            identity.refused_by(config.url)
        raise
    if choice.policy and pin:
        since = pinned.since if pinned is not None else certificates.today()
        new = certificates.Pin(
            url=config.url,
            fingerprint=fingerprint,
            policy=choice.policy,
            mode=choice.mode,
            since=since,
            expires=certificate.not_valid_after_utc.isoformat() if certificate is not None else "",
        )
        certificates.save_pin(pin_file, new, pinned)
    return Link(client, session, choice, certificate, first_use=pinned is None, resumed=resumed, identity=identity)


async def _activate(client: Client, config: OpcuaConfig) -> None:
    user = read_user(config)
    if user is not None:
        certificate, client.user_private_key = user
        await client.activate_session(certificate=certificate)
        return
    await client.activate_session(username=config.username or None, password=read_password(config) or None)


async def _resume(
    client: SessionClient,
    session: PublishSession,
    config: OpcuaConfig,
    held: Held,
    policies: Sequence[ua.UserTokenPolicy],
) -> bool:
    """Whether the server lets us go on with the session of before on this channel, OPC 10000-4, 5.7.3."""
    try:
        session.restore_authentication_token(node_of(held.token))
        client.go_on_with(held.nonce, policies)
        await _activate(client, config)
    except (uaerrors.UaError, ValueError) as e:
        log.debug("opcua_session_not_resumed", url=config.url, error=str(e) or type(e).__name__)
        session.reset_authentication_token()
        client.go_on_with(None, ())
        return False
    except (OSError, TimeoutError) as e:
        raise NotResumedError(f"no answer to the activation of an earlier session: {e or type(e).__name__}") from e
    return True


async def _open_channel(client: Client, url: str, identity: certificates.Identity | None) -> None:
    try:
        await client.open_secure_channel()
    except (AssertionError, uaerrors.UaError, ConnectionError) as e:  # asyncua asserts when the answer is a fault
        if identity is None:
            raise ConnectionError(f"{url} refused the channel: {e or type(e).__name__}") from e
        if isinstance(e, uaerrors.BadCertificateTimeInvalid) or certificates.days_left(identity.certificate) < 0:
            raise certificates.SecurityRefusedError(
                f"{url} refused the secure channel: {certificates.about_time(identity)}"
            ) from e
        raise certificates.SecurityRefusedError(
            f"{url} refused the secure channel, most likely because it does not trust this agent: trust "
            f"{identity.file} (SHA-256 {identity.fingerprint}) at the server"
        ) from e


def _secure(
    client: Client, choice: security.Choice, identity: certificates.Identity, certificate: x509.Certificate
) -> None:
    policy: Any = security.POLICIES[choice.policy]  # the base class does not show the arguments of its kin
    mode = getattr(ua.MessageSecurityMode, choice.mode)
    client.security_policy = policy(certificate, identity.certificate, identity.key, mode)
    client.uaclient.set_security(client.security_policy)


def _first(chain: bytes) -> bytes:
    """The first certificate of a chain; DER says its own length (X.690, 8.1.3.5)."""
    return chain[: int.from_bytes(chain[2:4], "big") + 4] if chain[1] == 0x82 else chain


def reason(error: BaseException, config: OpcuaConfig) -> str:  # noqa: PLR0911  a table of errors, one return each
    """What went wrong, in words, and what to do."""
    url = config.url
    if isinstance(error, TimeoutError):
        return f"{url} did not answer within {config.timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return f"{url} refused the connection: is the server running, and the port right?"
    if isinstance(
        error, uaerrors.BadIdentityTokenRejected | uaerrors.BadIdentityTokenInvalid | uaerrors.BadUserAccessDenied
    ):
        return f"{url} refused the user {config.username or 'anonymous'!r}: check username and password_file"
    if isinstance(
        error,
        uaerrors.BadSecurityChecksFailed | uaerrors.BadCertificateUntrusted | uaerrors.BadCertificateUriInvalid,
    ):
        return f"{url} does not trust this agent's certificate: trust it at the server ({type(error).__name__})"
    if isinstance(error, uaerrors.UaStatusCodeError):
        return f"{url}: {type(error).__name__}"
    if isinstance(error, ConnectionError):
        hint = "" if config.security == "none" else "; if it has a trust list, trust this agent's certificate there"
        return f"{url} closed the connection{hint}"
    return f"{url}: {error or type(error).__name__}"


async def gone(link: Link, seconds: float) -> None:
    """Wait `seconds`, or raise what ended the session."""
    done, _ = await asyncio.wait({link.session.lost}, timeout=seconds)
    for lost in done:
        lost.result()
