"""What the server holds for us between two connections: the session and the subscription, kept in the data folder.

With it a reconnect, and a restart of the agent, go on where the last connection ended: the session is activated again
on a new channel, or its subscription is transferred to a new session (OPC 10000-4, 5.7.3 and 5.14.7).
"""

import hashlib
from pathlib import Path

import msgspec
import structlog
from asyncua import ua

from edge.sources.opcua.certificates import write_private
from edge.sources.opcua.config import OpcuaConfig
from edge.sources.opcua.nodes import NodeAddress

log = structlog.get_logger()


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A session and its subscription.

    Attributes:
        digest: of what was asked for; another configuration starts anew.
        token: the session's authentication token, a secret.
        nonce: the server's last nonce, which the next activation signs.
        server_start: when the server started; another one knows nothing of us.
        subscription: its number.
        interval: revised publishing interval, seconds.
        keep_alive: revised keep-alive interval, seconds.
        lifetime: revised lifetime, seconds.
        items: client handle → monitored item.
        events: the same of the items for events; their handles are numbers of their own.
    """

    digest: str
    token: str
    nonce: bytes | None
    server_start: str
    subscription: int
    interval: float
    keep_alive: float
    lifetime: float
    items: dict[int, int]
    events: dict[int, int] = {}


def digest_of(config: OpcuaConfig) -> str:
    """What a subscription depends on: the server, the user, and every key of every signal."""
    return hashlib.blake2b(msgspec.json.encode(config, enc_hook=str), digest_size=16).hexdigest()


def read_held(path: Path, digest: str) -> Held | None:
    """What is kept there; None if there is nothing, or it is of another configuration."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Held)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as e:
        log.warning("opcua_session_file_unreadable", file=str(path), error=str(e), what="a new session is made")
        return None
    return found if found.digest == digest else None


def save_held(path: Path, held: Held) -> None:
    """Keep it, readable by its owner alone. A disk that refuses costs a later restart its session, no more."""
    try:
        write_private(path, msgspec.json.encode(held))
    except OSError as e:
        log.warning("opcua_session_not_kept", file=str(path), error=str(e))


def node_of(token: str) -> ua.NodeId:
    """The NodeId that an authentication token is. asyncua would take base64 that begins with 0x for hexadecimal."""
    address = NodeAddress.parse(token)
    return address.resolve([""] * (address.index + 1))


def held_path(data: Path, source: str) -> Path:
    """Where a source keeps it."""
    return data / "opcua" / f"{source}.json"
