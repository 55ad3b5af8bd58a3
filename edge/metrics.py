"""The agent's status in Prometheus' text format."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

_READINGS = "Readings since the journal began, by what became of them"


_FIGURES = frozenset({"pending", "in_flight", "broker_dropped"})  # of a source's counters: those that also fall


class _Snapshot(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        readings = CounterMetricFamily("fieldlab_readings", _READINGS, labels=["outcome"])
        for outcome, count in status["ledger"].items():
            readings.add_metric([outcome], count)
        yield readings
        stores = CounterMetricFamily(
            "fieldlab_store_readings",
            "Committed readings, by what became of them in a store",
            labels=["store", "outcome"],
        )
        waiting = GaugeMetricFamily("fieldlab_store_waiting_readings", "Readings waiting for a store", labels=["store"])
        for store in status["ledger_stores"]:
            for outcome in ("stored", "dead", "dropped", "left_out", "before"):
                stores.add_metric([store["name"], outcome], store[outcome])
            waiting.add_metric([store["name"]], store["waiting"])
        yield from (stores, waiting)
        gaps = GaugeMetricFamily(
            "fieldlab_gaps", "Intervals in which readings may be missing, by cause and state", labels=["cause", "state"]
        )
        for cause, states in status["gaps"]["by_cause"].items():
            for state in ("open", "ended", "closed", "unverifiable"):
                gaps.add_metric([cause, state], states.get(state, 0))
        yield gaps
        promised = GaugeMetricFamily(
            "fieldlab_guarantee_signals", "Signals by what nothing lost can mean for them", labels=["guarantee"]
        )
        lost = CounterMetricFamily(
            "fieldlab_known_lost_readings",
            "Readings known to be lost; 0 proves it only end-to-end",
            labels=["guarantee"],
        )
        for losses in status["ledger_losses"]:
            promised.add_metric([losses["guarantee"]], losses["signals"])
            lost.add_metric([losses["guarantee"]], losses["lost"])
        yield from (promised, lost)
        for name, text in (
            ("bytes", "Bytes that the journal uses"),
            ("max_bytes", "Cap on the journal's bytes"),
            ("records", "Records in the journal"),
            ("waiting", "Submissions waiting for the disk"),
            ("full", "1 while the journal is full and sources are held"),
            ("set_aside", "Damaged journals and records set aside"),
            ("letters", "Dead letters that wait for a repair"),
            ("letters_dropped", "Dead letters dropped for want of room among them"),
        ):
            yield GaugeMetricFamily(f"fieldlab_journal_{name}", text, value=float(status["journal"][name]))
        lag = GaugeMetricFamily("fieldlab_consumer_lag_readings", "Readings yet to be done", labels=["consumer"])
        age = GaugeMetricFamily("fieldlab_consumer_lag_seconds", "Age of the oldest of them", labels=["consumer"])
        failing = GaugeMetricFamily("fieldlab_consumer_failing", "1 while a consumer cannot go on", labels=["consumer"])
        for consumer in status["consumers"]:
            lag.add_metric([consumer["name"]], consumer["lag_readings"])
            age.add_metric([consumer["name"]], consumer["lag_seconds"])
            failing.add_metric([consumer["name"]], float(bool(consumer["error"])))
        yield from (lag, age, failing)
        connected = GaugeMetricFamily("fieldlab_source_connected", "1 while a source has a session", labels=["source"])
        missing = GaugeMetricFamily("fieldlab_source_missing_signals", "Signals that cannot be read", labels=["source"])
        events = CounterMetricFamily("fieldlab_source_events", "What happened to a source", labels=["source", "event"])
        figures = GaugeMetricFamily("fieldlab_source_figure", "How a source is now", labels=["source", "figure"])
        for source in status["sources"]:
            connected.add_metric([source["name"]], float(source["connected"]))
            missing.add_metric([source["name"]], len(source["missing"]))
            for name, count in source["counters"].items():
                family = figures if name in _FIGURES or name.endswith(("_days", "_ms")) else events
                family.add_metric([source["name"], name], count)
        yield from (connected, missing, events, figures)
        yield _counts("fieldlab_actions", "Actions on machines, by outcome", "outcome", status["actions"])
        text = "Readings stored and not judged, by reason"
        yield _counts("fieldlab_not_judged_readings", text, "reason", status["not_judged"])
        configuration = status["configuration"]
        yield CounterMetricFamily("fieldlab_reloads", "Configurations applied", value=configuration["reloads"])
        yield GaugeMetricFamily(
            "fieldlab_configuration_pending",
            "1 while the configuration file is not what runs: refused, or waiting for SIGHUP",
            value=float(bool(configuration["refused"] or configuration["waiting"])),
        )
        yield GaugeMetricFamily("fieldlab_memory_bytes", "Resident memory of the agent", value=status["memory_bytes"])
        yield GaugeMetricFamily("fieldlab_uptime_seconds", "Seconds since the agent started", value=status["uptime"])


def _counts(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def render(status: Mapping[str, Any]) -> tuple[bytes, str]:
    """The status as Prometheus reads it, and its media type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status))
    return generate_latest(registry), CONTENT_TYPE_LATEST
