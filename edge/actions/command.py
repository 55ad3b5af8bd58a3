"""One thing to do on a machine, and its answer: what actions ask of a source, without a protocol's words."""

from typing import Literal, Protocol

import msgspec

Plain = bool | int | float | str
Value = Plain | tuple[Plain, ...]


class WriteNode(msgspec.Struct, frozen=True, kw_only=True):
    """`write = {node = …, value = …}`.

    Attributes:
        node: NodeId with the namespace's URI, or a browse path without wildcards.
        value: what to write; a list for an array. It becomes the node's own type, or is refused.
    """

    node: str
    value: Value


class CallMethod(msgspec.Struct, frozen=True, kw_only=True):
    """`call = {object = …, method = …, arguments = […]}`.

    Attributes:
        object: the object that the method is called on; as `node` of a write.
        method: the method; as `object`.
        arguments: one for each input argument; each becomes the argument's own type, or is refused.
    """

    object: str
    method: str
    arguments: tuple[Value, ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a source is asked to do.

    Attributes:
        what: a write, or a call.
        until: ns; it is not sent after that time.
        signed: whether it may only be sent on a session whose messages are signed.
        dry: whether to look only, and to send nothing that changes anything.
    """

    what: WriteNode | CallMethod
    until: int = 2**63 - 1
    signed: bool = True
    dry: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command.

    Attributes:
        outcome: as of an `ActionRow`. `failed`: it was surely not sent; `unknown`: sent, and no answer came.
        detail: in words, never empty.
    """

    outcome: Literal["done", "dry_run", "refused", "failed", "unknown"]
    detail: str


class Commandable(Protocol):
    """A source that can do commands on its live session. It never raises, and never tries twice."""

    async def command(self, command: Command) -> Answer:
        """Do it now, if a session is up."""
        ...


def target_of(what: WriteNode | CallMethod) -> str:
    """What is acted upon, as the configuration has it."""
    return what.node if isinstance(what, WriteNode) else f"{what.object} {what.method}"
