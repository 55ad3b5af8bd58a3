"""The durable log on disk: sources append, everything else is a consumer with its own cursor."""

from ingest.journal.identity import Delivery
from ingest.journal.journal import Chunk, ConsumerState, Journal, JournalClosedError, JournalStats

__all__ = ["Chunk", "ConsumerState", "Delivery", "Journal", "JournalClosedError", "JournalStats"]
