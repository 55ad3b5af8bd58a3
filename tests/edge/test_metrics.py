"""The status in Prometheus' text format: what falls is a gauge, what only rises a counter."""

from prometheus_client.parser import text_string_to_metric_families

from edge.metrics import render

STATUS = {
    "ledger": {"received": 5, "lost": 0},
    "ledger_stores": [
        {"name": "influxdb", "before": 0, "stored": 3, "dead": 1, "dropped": 0, "left_out": 0, "waiting": 1}
    ],
    "ledger_losses": [{"guarantee": "from-receipt", "signals": 2, "lost": 4, "gaps_not_closed": 1, "loss": ""}],
    "gaps": {"by_cause": {"source_down": {"open": 1, "closed": 3}}, "newest": []},
    "journal": {
        "bytes": 1,
        "max_bytes": 2,
        "records": 3,
        "waiting": 0,
        "full": False,
        "set_aside": 0,
        "letters": 0,
        "letters_dropped": 0,
    },
    "consumers": [{"name": "influxdb", "lag_readings": 7, "lag_seconds": 0.5, "error": "away"}],
    "sources": [
        {
            "name": "opcua-0",
            "connected": True,
            "missing": {"a": "b"},
            "counters": {"reconnects": 2, "certificate_days": 400, "clock_offset_ms": -3, "pending": 1},
        }
    ],
    "actions": {"done": 2, "refused": 1},
    "not_judged": {"late": 3, "let_go": 0},
    "memory_bytes": 10.0,
    "configuration": {"reloads": 2, "refused": "", "waiting": ""},
    "uptime": 1.5,
}


def test_what_falls_is_a_gauge_and_what_rises_a_counter() -> None:
    body, media_type = render(STATUS)
    assert media_type.startswith("text/plain")
    samples = {
        (s.name, frozenset(s.labels.values())): (s.value, family.type)
        for family in text_string_to_metric_families(body.decode())
        for s in family.samples
    }
    assert samples["fieldlab_source_events_total", frozenset({"opcua-0", "reconnects"})] == (2.0, "counter")
    for figure, value in (("certificate_days", 400.0), ("clock_offset_ms", -3.0), ("pending", 1.0)):
        assert samples["fieldlab_source_figure", frozenset({"opcua-0", figure})] == (value, "gauge")
    assert samples["fieldlab_consumer_failing", frozenset({"influxdb"})] == (1.0, "gauge")
    assert samples["fieldlab_readings_total", frozenset({"received"})] == (5.0, "counter")
    assert samples["fieldlab_actions_total", frozenset({"refused"})] == (1.0, "counter")
    assert samples["fieldlab_not_judged_readings_total", frozenset({"late"})] == (3.0, "counter")


def test_the_ledger_of_each_store_and_the_gaps_are_metrics() -> None:
    body, _ = render(STATUS)
    samples = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(body.decode())
        for s in family.samples
    }
    assert samples["fieldlab_store_readings_total", "dead", "influxdb"] == 1
    assert samples["fieldlab_store_waiting_readings", "influxdb"] == 1
    assert samples["fieldlab_gaps", "open", "source_down"] == 1
    assert samples["fieldlab_gaps", "closed", "source_down"] == 3
    assert samples["fieldlab_gaps", "ended", "source_down"] == 0
    assert samples["fieldlab_guarantee_signals", "from-receipt"] == 2
    assert samples["fieldlab_known_lost_readings_total", "from-receipt"] == 4
