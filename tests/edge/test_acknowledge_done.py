"""What was done of a proposal goes into the journal with the acknowledgement."""

import msgspec
import pytest

from edge.acknowledge import MOST_DONE, control_of

WORD = {"id": "0123456789abcdef", "by": "anna", "cause": "tool"}


def test_what_was_done_is_recorded() -> None:
    control = control_of(msgspec.json.encode(WORD | {"done": " offset\nby -0.02 mm "}), 5)
    assert (control.time, control.by, control.action) == (5, "anna", "acknowledge")
    assert control.detail == {"id": WORD["id"], "cause": "tool", "done": "offset by -0.02 mm"}
    assert "done" not in control_of(msgspec.json.encode(WORD), 5).detail


def test_it_is_bounded() -> None:
    with pytest.raises(ValueError, match="what was done"):
        control_of(msgspec.json.encode(WORD | {"done": "x" * (MOST_DONE + 1)}), 5)
