"""InfluxDB 1.x, 2.x and 3 Core, and what takes their writes."""

from ingest.stores.influxdb.kind import KIND

__all__ = ["KIND"]
