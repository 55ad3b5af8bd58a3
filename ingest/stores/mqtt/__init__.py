"""Tells findings, verdicts and part events to an MQTT broker, for whoever listens."""

from ingest.stores.mqtt.kind import KIND

__all__ = ["KIND"]
