"""Sparkplug B on the wire, both ways: payloads to bytes, and bytes to payloads. Imports nothing of the rest.

Shared by the host application (`edge.sources.mqtt.sparkplug`) and the edge node (`ingest.stores.mqtt`).
"""
