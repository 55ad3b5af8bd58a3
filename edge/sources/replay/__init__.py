"""Plays recorded files, CSV or Parquet, as if they came from a machine: for `fieldlab replay`."""

import msgspec

from edge.sources.base import CheckLine, Sink, Source, SourceContext, SourceKind
from edge.sources.replay.config import ReplayConfig
from fieldlab.errors import ConfigError

_HOW = "a recording is played by `fieldlab replay FILE CONFIG`; an agent has no file to play"


class ReplayKind:
    """The kind `replay`; see `edge.sources.base.SourceKind`."""

    config: type[msgspec.Struct] = ReplayConfig

    def create(self, config: ReplayConfig, context: SourceContext, sink: Sink) -> Source:  # noqa: ARG002  refused
        """Refuses: an agent has no file.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(_HOW, key="kind")

    async def check(self, config: ReplayConfig, context: SourceContext) -> list[CheckLine]:
        """One line that says how a recording is played."""
        return [CheckLine(level="warn", subject=f"{context.name} {config.machine}", text=_HOW)]


KIND: SourceKind = ReplayKind()
