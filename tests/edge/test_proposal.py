"""What a discovery proposes: text that is always TOML, names that are always valid, and guesses that hold."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from edge.proposal import (
    Frame,
    Proposal,
    ProposedMachine,
    ProposedSignal,
    clean_name,
    is_measured,
    part_of,
    to_toml,
    unique_names,
)
from fieldlab.model.place import check_name

TEXT = st.text(max_size=40)


@given(TEXT)
def test_a_clean_name_is_valid(text: str) -> None:
    assert check_name(clean_name(text), "signal")
    assert not set("*?[]") & set(clean_name(text))


@given(st.lists(st.sampled_from(["a", "a_2", "b"]), max_size=8))
def test_unique_names(wanted: list[str]) -> None:
    found = unique_names(wanted)
    assert len(set(found)) == len(found) == len(wanted)


@given(name=TEXT, unit=TEXT, node=TEXT, note=TEXT, state=TEXT, low=st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_a_server_says_the_output_is_toml(
    name: str, unit: str, node: str, note: str, state: str, low: float
) -> None:
    signal = ProposedSignal(
        name=clean_name(name), unit=unit, lsl=low, kind="state", states={"0": state}, address={"node": node},
        measured=True, notes=(note,),
    )  # fmt: skip
    machine = ProposedMachine(name=clean_name(note), why=note, signals=(signal,), left_out=(state,))
    for rules in (False, True):
        text = to_toml(Proposal(url=note, sources=({"kind": node},), machines=(machine,), rules=rules), Frame())
        read = tomllib.loads(text)
        known = read["signal"][0] if rules else read["source"][0]["signal"][0]
        assert known["lsl"] == low
        assert known["map"]["0"] == state
        assert known.get("unit", "") == unit
        assert read["source"][0]["kind"] == node


def test_how_parts_are_told_apart() -> None:
    def machine(*names: str) -> ProposedMachine:
        return ProposedMachine(
            name="m", why="", signals=tuple(ProposedSignal(name=n, kind="text", text=True) for n in names)
        )

    assert part_of(machine("load", "Job.JobOrder", "Production.PartId")) is not None
    table, why = part_of(machine("ToolName", "Job.JobOrder", "Production.PartId")) or ({}, "")
    assert table == {"id": "Production.PartId", "genealogy": ["ToolName", "Job.JobOrder"]}
    assert "guessed" in why
    assert (part_of(machine("Job.JobOrder")) or ({},))[0] == {"job": "Job.JobOrder"}
    assert (part_of(machine("PartsProduced")) or ({},))[0] == {"counter": "PartsProduced"}
    assert part_of(machine("load")) is None


def test_what_is_set_is_not_measured() -> None:
    assert is_measured("Axis_1.ActualPosition")
    for name in ("SpeedSetpoint", "Axis.TargetPosition", "FeedOverride", "MaxLoad"):
        assert not is_measured(name)
