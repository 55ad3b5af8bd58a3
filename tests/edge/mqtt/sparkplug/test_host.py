"""The state machine of the host, fed by npm's encoder: births, order, deaths, what waits and what is refused."""

from typing import Any

import pytest

GONE = 0x80310000


def values(readings: Any) -> list[Any]:
    assert not isinstance(readings, str), f"ignored: {readings}"
    return [value for _, value, _ in readings]


def test_births_name_what_data_calls_by_alias(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node("plant", "line-3")
    born = h(n.nbirth(n.metric("Load/Spindle", 1.5, alias=7, properties={"engUnit": {"type": "String", "value": "%"}})))
    assert born == [("line-3/Load.Spindle", 1.5, 0)], "bdSeq and Node Control are no signals"
    assert h.infos["line-3/Load.Spindle"].unit == "%"
    assert h(n.send("DBIRTH", n.metric("Diameter", 12.0, alias=8), device="cnc-07")) == [("cnc-07/Diameter", 12.0, 0)]
    assert h(n.send("NDATA", n.metric(None, 2.5, alias=7))) == [("line-3/Load.Spindle", 2.5, 0)]
    assert h(n.send("DDATA", n.metric(None, 12.5, alias=8), device="cnc-07")) == [("cnc-07/Diameter", 12.5, 0)]
    assert h.count("births") == 2
    assert h.count("nodes_online") == 1


def test_the_sequence_wraps(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    sent = [float(i) for i in range(600)]
    got = [v for value in sent for v in values(h(n.send("NDATA", n.metric(None, value, alias=1))))]
    assert got == sent
    assert h.count("held") == 0


def test_what_comes_too_early_waits_for_its_turn(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    first, second, third = (n.send("NDATA", n.metric(None, float(i), alias=1)) for i in (1, 2, 3))
    assert h(third) == "held"
    assert h(second) == "held"
    assert values(h(first)) == [1.0, 2.0, 3.0]
    assert h.count("reordered") == 2
    h.now += 3600
    assert h.say() == [], "all is well: nobody is asked"


def test_a_birth_that_comes_after_its_data(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    for i in range(5):
        h(n.send("NDATA", n.metric(None, float(i), alias=1)))
    birth = n.nbirth(n.metric("b", 10.0, alias=1), bdseq=1)
    device = n.send("DBIRTH", n.metric("c", 20.0, alias=2), device="d")
    data = n.send("DDATA", n.metric(None, 21.0, alias=2), device="d")
    assert h(data) == "held"
    assert h(device) == "held"
    assert h(birth) == [("n/b", 10.0, 0), ("d/c", 20.0, 0), ("d/c", 21.0, 0)], "alias 1 is b now, and order holds"


def test_a_gap_asks_for_a_birth_and_reads_what_waited_when_it_is_proven(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    h(n.send("DBIRTH", n.metric("c", 0.0, alias=2), device="d"))
    n.send("NDATA", n.metric(None, 1.0, alias=1))  # lost
    n.send("NDATA", n.metric(None, 2.0, alias=1))  # lost
    assert h(n.send("NDATA", n.metric(None, 3.0, alias=1))) == "held"
    assert h(n.send("DDATA", n.metric(None, 4.0, alias=2), device="d")) == "held"
    assert h.say() == []
    h.now += 2.1
    assert h.say() == ["spBv1.0/g/NCMD/n"]
    assert (h.count("gaps"), h.count("missed")) == (1, 2)
    assert h(n.send("NDATA", n.metric(None, 5.0, alias=1))) == "held", "a birth may have been among what is missing"
    again = n.nbirth(n.metric("a", 6.0, alias=1))
    assert sorted(values(h(again))) == [3.0, 5.0, 6.0]
    assert values(h(n.send("DBIRTH", n.metric("c", 7.0, alias=2), device="d"))) == [7.0, 4.0]
    assert h.dialect.rejected() == []
    assert h.count("waiting") == 0


def test_what_a_birth_disproves_is_set_aside(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    n.send("NDATA", n.metric(None, 1.0, alias=1))  # lost
    waiting = n.send("NDATA", n.metric(None, 2.0, alias=1))
    assert h(waiting) == "held"
    h.now += 2.1
    h.say()
    assert h(n.nbirth(n.metric("other", 3.0, alias=1))) == [("n/other", 3.0, 0)]
    rejected = h.dialect.rejected()
    assert [each.payload for each in rejected] == [waiting[1]]
    assert "aliases cannot be told" in rejected[0].reason


def test_a_birth_of_another_session_proves_nothing(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    n.send("NDATA", n.metric(None, 1.0, alias=1))  # lost
    waiting = n.send("NDATA", n.metric(None, 2.0, alias=1))
    assert h(waiting) == "held"
    h.now += 2.1
    h.say()
    assert values(h(n.nbirth(n.metric("a", 3.0, alias=1), bdseq=1))) == [3.0]
    assert [each.payload for each in h.dialect.rejected()] == [waiting[1]]


def test_data_before_any_birth(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    n.seq = 17
    by_alias = n.send("NDATA", n.metric(None, 1.0, alias=1))
    assert h(by_alias) == "held"
    assert h(n.send("NDATA", n.metric("a", 2.0))) == "held"
    assert h.say() == ["spBv1.0/g/NCMD/n"]
    assert h(n.nbirth(n.metric("a", 3.0, alias=1))) == [("n/a", 3.0, 0), ("n/a", 2.0, 0)], "a name explains itself"
    assert [each.payload for each in h.dialect.rejected()] == [by_alias[1]]


def test_nobody_waits_for_ever(host: Any, edge_node: Any) -> None:
    h, n = host(patience=30.0), edge_node()
    sent = n.send("NDATA", n.metric(None, 1.0, alias=1))
    assert h(sent) == "held"
    h.now += 31
    h.say()
    rejected = h.dialect.rejected()
    assert [each.payload for each in rejected] == [sent[1]]
    assert "30 s" in rejected[0].reason
    assert h.count("waiting") == 0


def test_what_waits_is_bounded(host: Any, edge_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sources.mqtt.sparkplug.waiting.MOST", 10)
    h, n = host(), edge_node()
    sent = [n.send("NDATA", n.metric(None, float(i), alias=1)) for i in range(25)]
    assert {h(each) for each in sent} == {"held"}
    assert h.count("waiting") == 10
    assert [each.payload for each in h.dialect.rejected()] == [payload for _, payload in sent[:15]]


def test_a_death_marks_every_signal_once(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 1.0, alias=1), bdseq=4))
    h(n.send("DBIRTH", n.metric("c", 2.0, alias=2), device="d"))
    h(n.send("DBIRTH", n.metric("e", 2.0, alias=3), device="f"))
    assert h(n.send("DDEATH", device="d")) == [("d/c", None, GONE)]
    assert h(n.ndeath(bdseq=3)) == "ignored", "a will of an older session"
    assert h.count("late_deaths") == 1
    assert values(h(n.send("NDATA", n.metric(None, 3.0, alias=1)))) == [3.0], "it lives"
    will = n.ndeath()
    assert h(will) == [("n/a", None, GONE), ("f/e", None, GONE)]
    assert h(n.send("NDATA", n.metric(None, 4.0, alias=1))) == "held"
    assert h(will) == [("n/a", None, GONE), ("f/e", None, GONE)], "again: the journal compares"
    assert h(n.ndeath()) == "ignored", "who is dead does not die"


def test_a_death_that_comes_after_the_next_birth(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 1.0, alias=1), bdseq=4))
    will = n.ndeath(bdseq=4)
    h(n.nbirth(n.metric("a", 2.0, alias=1), bdseq=5))
    assert h(will) == "ignored"
    assert values(h(n.send("NDATA", n.metric(None, 3.0, alias=1)))) == [3.0]


def test_a_redelivered_message_means_what_it_meant(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    old = n.send("NDATA", n.metric(None, 1.0, alias=1))
    assert values(h(old)) == [1.0]
    birth = n.nbirth(n.metric("b", 2.0, alias=1), bdseq=1)
    first = n.send("NDATA", n.metric(None, 3.0, alias=1))
    h(birth)
    h(first)
    # The connection was lost before their acknowledgements: the broker sends all of them again, in order.
    assert h(old) == [("n/a", 1.0, 0)], "by the birth certificate of its time"
    assert h(birth) == [("n/b", 2.0, 0)]
    assert h(first) == [("n/b", 3.0, 0)]
    assert values(h(n.send("NDATA", n.metric(None, 4.0, alias=1)))) == [4.0], "and the sequence goes on"
    assert h.count("held") == 0


def test_a_device_is_born_again_when_its_births_are_redelivered(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    node = n.nbirth(n.metric("a", 0.0, alias=1))
    device = n.send("DBIRTH", n.metric("c", 1.0, alias=2), device="d")
    data = n.send("DDATA", n.metric(None, 2.0, alias=2), device="d")
    for _ in range(3):  # the broker crashed, and sends what it knew then
        assert values(h(node)) == [0.0]
        assert values(h(device)) == [1.0]
        assert values(h(data)) == [2.0]
    assert values(h(n.send("DDATA", n.metric(None, 3.0, alias=2), device="d"))) == [3.0], "it is alive"
    assert h(n.send("DDEATH", device="d")) == [("d/c", None, GONE)]
    assert h.count("held") == 0


def test_an_old_message_whose_number_is_the_next_one(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    old = [n.send("NDATA", n.metric(None, float(i), alias=1)) for i in range(3)]
    birth = n.nbirth(n.metric("b", 10.0, alias=2), bdseq=1)
    new = n.send("NDATA", n.metric(None, 20.0, alias=2))
    for each in (*old, birth, new):
        h(each)
    for each, value in zip(old[1:], (1.0, 2.0), strict=True):  # seq 2 and 3, and 2 is what is expected now
        assert h(each) == [("n/a", value, 0)]
    last = n.send("NDATA", n.metric(None, 20.5, alias=2))
    assert values(h(last)) == [20.5], "they did not count"
    assert values(h(birth)) == [10.0]
    assert values(h(new)) == [20.0]
    assert values(h(last)) == [20.5]
    assert values(h(n.send("NDATA", n.metric(None, 21.0, alias=2)))) == [21.0], "the sequence goes on"
    assert h.count("held") == 0


def test_requests_are_few(host: Any, edge_node: Any) -> None:
    h = host()
    nodes = [edge_node("g", f"n{i}") for i in range(300)]
    for n in nodes:
        h(n.send("NDATA", n.metric(None, 1.0, alias=1)))
    asked = h.say()
    assert len(asked) == len(set(asked)) == 20
    for _ in range(100):
        h.now += 0.1
        asked += h.say()
    assert len(asked) <= 20 + 10 * 10 + 1, "10 a second at most"

    h, n = host(), edge_node()
    total = 0
    for _ in range(1200):  # an hour of births that are followed by a gap at once
        h(n.nbirth(n.metric("a", 0.0, alias=1)))
        n.send("NDATA")
        h(n.send("NDATA", n.metric(None, 1.0, alias=1)))
        h.now += 3.0
        total += len(h.say())
    assert 10 < total < 60, "5 min apart in the end"


def test_what_is_known_survives(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    h(n.send("DBIRTH", n.metric("c", 2.0, alias=2), device="d"))
    h.save()
    h(n.send("NDATA", n.metric(None, 1.0, alias=1)))
    assert h.dialect.checkpoint() is None, "data changes nothing that must be kept"

    later = host(present=False)
    assert later(n.send("NDATA", n.metric(None, 2.0, alias=1))) == "held", "births may have been missed"

    later = host()
    assert later(n.send("NDATA", n.metric(None, 3.0, alias=1))) == [("n/a", 3.0, 0)]
    assert later(n.send("DDATA", n.metric(None, 4.0, alias=2), device="d")) == [("d/c", 4.0, 0)]
    assert later(n.ndeath()) == [("n/a", None, GONE), ("d/c", None, GONE)]


def test_after_a_restart_births_are_asked_for(context: Any, host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    h.save()
    again = type(h)(context)
    assert again.connect() == ["spBv1.0/STATE/line-3", "spBv1.0/g/NCMD/n"]
    assert type(h)(context, rebirth=False, primary=False).connect() == []


def test_a_birth_of_qos_0_may_have_been_missed(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)), qos=0)
    assert values(h(n.send("NDATA", n.metric(None, 1.0, alias=1)), qos=0)) == [1.0]
    assert h.infos["n/a"] == "from-receipt"
    h.dialect.lost()
    assert h.connect() == ["spBv1.0/STATE/line-3", "spBv1.0/g/NCMD/n"]
    assert h(n.send("NDATA", n.metric(None, 2.0, alias=1)), qos=0) == "held"
    assert sorted(values(h(n.nbirth(n.metric("a", 3.0, alias=1)), qos=0))) == [2.0, 3.0]


def test_what_an_earlier_process_read_comes_again(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    old = [n.send("NDATA", n.metric(None, float(i), alias=1)) for i in range(3)]
    birth = n.nbirth(n.metric("b", 10.0, alias=1), bdseq=1)
    new = [n.send("NDATA", n.metric(None, 20.0 + i, alias=1)) for i in range(4)]
    for each in (*old, birth, *new):
        h(each)
    h.save()

    later = host()
    assert later(old[2], redelivered=True) == [], "also when it is the first that comes"
    assert later(new[3]) == [("n/b", 23.0, 0)]
    for again in (True, False):  # a broker that crashed may have forgotten that it sent them before
        for each in old:
            assert later(each, redelivered=again) == [], "it was on disk before the birth that followed it"
        for i in (0, 1, 2):
            assert values(later(new[i], redelivered=again)) == [20.0 + i]
    assert later(n.send("NDATA", n.metric(None, 30.0, alias=1))) == [("n/b", 30.0, 0)], "the sequence goes on"
    assert later.count("held") == 0


def test_what_waits_survives(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    lost = n.send("NDATA", n.metric(None, 1.0, alias=1))
    early = n.send("NDATA", n.metric(None, 2.0, alias=1))
    assert h(early) == "held"
    h.save()

    later = host()
    assert later(early) == "held", "it was kept, and not acknowledged: it comes again"
    assert later.count("waiting") == 1
    assert later(lost) == "held"
    assert sorted(values(later(n.nbirth(n.metric("a", 3.0, alias=1))))) == [1.0, 2.0, 3.0]
    later.save()
    assert host().count("waiting") == 0


def test_a_damaged_memory_is_set_aside(host: Any, edge_node: Any, context: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    h.save()
    file = context.data / f"{context.name}.sparkplug"
    h.dialect._memory.close()
    file.write_bytes(b"no database" * 1000)
    later = host()
    assert later(n.send("NDATA", n.metric(None, 1.0, alias=1))) == "held"
    assert file.with_suffix(".damaged").exists()
    later.save()


def test_a_checkpoint_that_failed_is_made_good(host: Any, edge_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 0.0, alias=1)))
    with monkeypatch.context() as patch:
        patch.setattr(h.dialect._memory, "save", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            h.save()
    h.save()
    assert values(host()(n.send("NDATA", n.metric(None, 1.0, alias=1)))) == [1.0]


def test_one_machine_is_not_two(host: Any, edge_node: Any) -> None:
    h, one, two = host(), edge_node("g", "n1"), edge_node("g", "n2")
    for n in (one, two):
        h(n.nbirth())
    h(one.send("DBIRTH", one.metric("a", 1.0), device="plc"))
    with pytest.raises(ValueError, match="g/n1/plc already"):
        h(two.send("DBIRTH", two.metric("a", 1.0), device="plc"))


def test_retained_commands_and_others(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    assert h(n.nbirth(n.metric("a", 1.0)), retained=True) == "ignored"
    assert h(n.send("NCMD", n.metric("a", 1.0))) == "ignored"
    assert h(("spBv1.0/STATE/other", b"{}")) == "ignored"
    assert h(("fieldlab/a/b", b"{}")) == "unmatched"
    with pytest.raises(ValueError, match="levels"):
        h(("spBv1.0/g/NDATA/n/d", b""))
    with pytest.raises(ValueError, match="not Sparkplug B"):
        h((n.topic("NBIRTH"), b"\xff\xff"))


def test_somebody_says_that_we_are_not_there(host: Any) -> None:
    h = host()
    offline = ("spBv1.0/STATE/line-3", b'{"online": false, "timestamp": 1}')
    assert h(offline) == "ignored"
    assert h.say() == ["spBv1.0/STATE/line-3"]
    assert h(offline) == "ignored"
    assert h.say() == [], "not more than once a second"
    h.now += 1
    assert h.say() == ["spBv1.0/STATE/line-3"], "but then"
    assert h(("spBv1.0/STATE/line-3", b'{"online": true, "timestamp": 1}')) == "ignored"
    h.now += 2
    assert h.say() == []


def test_what_the_sequence_and_bdseq_show_to_be_missing_is_a_hole(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 1.0, alias=1)))
    h(n.send("DBIRTH", n.metric("b", 1.0, alias=2), device="d"))
    h(n.send("NDATA", n.metric(None, 2.0, alias=1)))
    before = n.clock
    n.send("NDATA", n.metric(None, 3.0, alias=1))
    n.send("NDATA", n.metric(None, 4.0, alias=1))
    h(n.send("NDATA", n.metric(None, 5.0, alias=1)))
    after = n.clock
    assert h.dialect.holes() == [], "they may still come"
    h.now += 3
    h.say()
    (hole,) = h.dialect.holes()
    assert {h.table[i].short for i in hole.signals} == {"n/a", "d/b"}, "nobody knows what the messages were about"
    assert (hole.start, hole.end, hole.state) == (before * 10**6, after * 10**6, "ended")
    assert "2 messages of edge node g/n never came, from seq 3 on" in hole.detail
    assert (h.dialect.holes(), h.count("holes"), h.count("missed")) == ([], 1, 2)

    h(n.nbirth(n.metric("a", 6.0, alias=1)))  # the answer to our request: the same session
    assert h.dialect.holes() == []
    h(n.ndeath())
    h(n.nbirth(n.metric("a", 7.0, alias=1), bdseq=1))
    assert h.dialect.holes() == [], "a death, and the next session: nothing is missing"
    h(n.nbirth(n.metric("a", 8.0, alias=1), bdseq=2))
    (hole,) = h.dialect.holes()
    assert (hole.state, hole.end) == ("unverifiable", n.clock * 10**6)
    assert "bdSeq 2 after 1, without the death" in hole.detail
    h(n.ndeath())
    h(n.nbirth(n.metric("a", 9.0, alias=1), bdseq=5))
    (hole,) = h.dialect.holes()
    assert "bdSeq 5 after 2; of what was between nothing came" in hole.detail
    h(n.ndeath(bdseq=4))
    assert h.dialect.holes() == [], "a late will of a session before"
    h.now += 600  # requests to one edge node have pauses between them
    h.say()
    h(n.ndeath(bdseq=6))
    (hole,) = h.dialect.holes()
    assert "death with bdSeq 6 after the birth with 5" in hole.detail
    assert h.say() == [n.topic("NCMD")], "so its births are asked for"


@pytest.mark.parametrize("end", ["birth", "death"])
def test_a_birth_or_a_death_ends_the_wait_for_a_missing_message(host: Any, edge_node: Any, end: str) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 1.0, alias=1)))
    n.send("NDATA", n.metric(None, 2.0, alias=1))
    assert h(n.send("NDATA", n.metric(None, 3.0, alias=1))) == "held"
    h(n.nbirth(n.metric("a", 4.0, alias=1)) if end == "birth" else n.ndeath())
    assert [hole.state for hole in h.dialect.holes()] == ["ended"]
    assert h.count("missed") == 1


def test_while_we_were_away_a_new_session_is_no_hole(host: Any, edge_node: Any) -> None:
    h, n = host(), edge_node()
    h(n.nbirth(n.metric("a", 1.0, alias=1)))
    h.connect(present=False)
    h(n.nbirth(n.metric("a", 2.0, alias=1), bdseq=7))
    assert h.dialect.holes() == [], "the gap of the connection has it"
    h.connect(present=True)
    h(n.nbirth(n.metric("a", 2.0, alias=1), bdseq=9))
    assert len(h.dialect.holes()) == 1, "the broker had kept what was between: it was not there"
