import threading

import pytest

from fieldlab.model import Place, SignalKey, SignalTable
from fieldlab.model.signal import TooManySignalsError


def key(number: int) -> SignalKey:
    return SignalKey.parse(f"site/area/line/machine/s{number}")


def test_a_number_never_changes_its_meaning() -> None:
    table = SignalTable([key(0), key(1)])
    assert [table.index(key(i)) for i in (1, 2, 0, 2, 3)] == [1, 2, 0, 2, 3]
    assert [table[i] for i in range(len(table))] == [key(i) for i in range(4)]
    assert table.find(key(3)) == 3
    assert table.find(key(9)) is None
    assert table.since(2) == [key(2), key(3)]


def test_the_cap_refuses_new_signals_only() -> None:
    table = SignalTable(max_series=2)
    table.index(key(0))
    table.index(key(1))
    with pytest.raises(TooManySignalsError, match="machine/s2 would be series 3; max_series is 2"):
        table.index(key(2))
    assert table.index(key(0)) == 0


@pytest.mark.parametrize("name", ["a/b", "", "a+", "\n"])
def test_a_name_that_the_journal_could_not_read_again_is_refused(name: str) -> None:
    table = SignalTable()
    with pytest.raises(ValueError, match=r"place|signal"):
        table.index(SignalKey(Place("a", "b", "c", "d"), name))
    assert len(table) == 0


def test_threads_get_one_number_a_key() -> None:
    table = SignalTable()
    found: list[list[int]] = []
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait()
        found.append([table.index(key(i)) for i in range(500)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table) == 500
    assert all(each == found[0] for each in found)
    assert [table[n] for n in found[0]] == [key(i) for i in range(500)]
