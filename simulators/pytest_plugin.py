"""Fixtures of pytest, there wherever Fieldlab is installed: machines that run, in one line.

    def test_my_reader(simulated_machines):
        mill = simulated_machines("cnc_mill", speed=10)
        my_reader.connect(mill.opcua_url)
        mill.control("inject", "cnc_mill-1", "tool_wear")
        mill.wait_for_parts(20)
        assert my_reader.values == [r.value for r in mill.truth().readings if r.signal == "diameter"]

Nothing of Fieldlab is imported until a test asks for a fixture.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from simulators.simulation import Simulation


@pytest.fixture
def simulated_machines() -> Iterator["Callable[..., Simulation]"]:
    """A function that starts machines, which end with the test: see `Simulation`.

    It takes a kind of machine, the name of a scenario, or the path of a scenario's file; `speed` (1), and for one
    machine `name`, `sample_period` and `cycle_time` (s).
    """
    from simulators.machines import MACHINES  # noqa: PLC0415  as the module says
    from simulators.scenarios import load  # noqa: PLC0415
    from simulators.simulation import Simulation, of_kind  # noqa: PLC0415

    with contextlib.ExitStack() as stack:

        def start(what: str, *, speed: float = 1.0, **options: Any) -> Simulation:
            scenario = of_kind(what, **options) if what in MACHINES else load(what, **options)
            return stack.enter_context(Simulation(scenario, speed=speed))

        yield start
