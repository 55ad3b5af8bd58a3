"""The `[[store]]` table of kind `embedded`."""

from typing import Literal

import msgspec

from fieldlab.config import Duration, Size


class EmbeddedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much the embedded store may keep and use. Its file is `embedded.duckdb` in the agent's data folder.

    Attributes:
        kind: `embedded`.
        name: unique in the agent.
        retention: what is older than this, counted back from the newest reading, is deleted.
        memory: the most memory that DuckDB takes; larger queries go through a temporary file.
        threads: threads of DuckDB.
        when_full: what the journal does when it is full and this store is behind.
    """

    kind: Literal["embedded"] = "embedded"
    name: str = "embedded"
    retention: Duration = Duration(90 * 86400)
    memory: Size = Size(48 * 10**6)
    threads: int = 1
    when_full: Literal["hold", "drop-oldest"] = "hold"
