"""What an edge node must know after a restart: its last bdSeq, and the metrics of its birth certificates."""

import os
from pathlib import Path

import msgspec
import structlog

from ingest.stores.mqtt.metrics import Known

_log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content: MessagePack."""

    group: str
    node: str
    bdseq: int = -1
    metrics: dict[int, Known] = {}


class NodeMemory:
    """The file. Without it births would begin with few metrics, and a host could take an old death for a new one.

    Args:
        path: the file.
        group: of the edge node.
        node: its name.
    """

    def __init__(self, path: Path, group: str, node: str) -> None:
        self._path = path
        self._kept = Kept(group=group, node=node)
        try:
            found = msgspec.msgpack.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as e:
            _log.warning("edge_node_file_unreadable", file=str(path), error=str(e))
            return
        if (found.group, found.node) == (group, node):
            self._kept = found

    @property
    def metrics(self) -> dict[int, Known]:
        """The metrics as they were saved."""
        return self._kept.metrics

    def next_bdseq(self) -> int:
        """The number of a new session at the broker: 0 to 255, and around. On disk before it is used."""
        bdseq = (self._kept.bdseq + 1) & 255
        self._save(msgspec.structs.replace(self._kept, bdseq=bdseq))
        return bdseq

    def save(self, metrics: dict[int, Known]) -> None:
        """Keep the metrics."""
        asleep = {signal: msgspec.structs.replace(each, live=False) for signal, each in metrics.items()}
        self._save(msgspec.structs.replace(self._kept, metrics=asleep))

    def _save(self, kept: Kept) -> None:
        self._kept = kept
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_name(self._path.name + ".new")
            with draft.open("wb") as file:
                file.write(msgspec.msgpack.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as e:
            _log.warning("edge_node_file_not_written", file=str(self._path), error=str(e))
