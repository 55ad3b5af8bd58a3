"""The embedded store: one DuckDB file in the agent's data folder. The default; it needs no server."""

from ingest.stores.embedded.kind import KIND

__all__ = ["KIND"]
