"""The log goes to stderr as it is when something is logged, and never stops who logs."""

import io
import json

import pytest
import structlog

from fieldlab.cli.common import log_to_stderr


def test_a_line_is_one_json_object_on_the_stderr_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    log_to_stderr()
    later = io.StringIO()
    monkeypatch.setattr("sys.stderr", later)
    structlog.get_logger().warning("store_unavailable", store="influxdb")
    line = json.loads(later.getvalue())
    assert (line["event"], line["level"], line["store"]) == ("store_unavailable", "warning", "influxdb")


class _Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("gone", ["closed", "broken"])
def test_a_reader_that_went_away_stops_nobody(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    stream = _Broken() if gone == "broken" else io.StringIO()
    log_to_stderr()
    if gone == "closed":
        stream.close()
    monkeypatch.setattr("sys.stderr", stream)
    structlog.get_logger().error("journal_disk_refuses", error="no space")
