"""Machines that run beside a program that is not asynchronous, such as a test.

    with Simulation(of_kind("cnc_mill"), speed=10) as hall:
        hall.wait_for_parts(5)
        hall.control("inject", "cnc_mill-1", "tool_wear")

They run in a thread with an event loop of its own.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from simulators.console.control import Control
from simulators.machines import MACHINES
from simulators.protocols.broker import Broker
from simulators.runner import Access, Runner
from simulators.scenarios import MachinePlan, Scenario, describe
from simulators.truth import Truth, TruthWriter, read_truth

_PATIENCE = 60.0  # s for servers to be up, on a slow machine


def of_kind(kind: str, *, name: str = "", sample_period: float = 0.05, cycle_time: float = 0.4) -> Scenario:
    """A scenario of one machine without an end; `name` is `<kind>-1` if it is not given."""
    plan = MachinePlan(name=name or f"{kind}-1", kind=kind)
    return Scenario(
        title=kind,
        name=kind,
        machine=(plan,),
        duration=1e9,
        sample_period=sample_period,
        cycle_time=cycle_time,
    )


class Simulation:
    """Runs a scenario; a context manager. Production begins at once, and ends with the context.

    Args:
        scenario: what to run.
        speed: simulated seconds a second.

    Attributes:
        opcua_url: of the OPC UA server; None if no machine needs one.
        mqtt: how to reach the broker; None if no machine needs one.
        machines: what `describe` says of them.
    """

    def __init__(self, scenario: Scenario, *, speed: float = 1.0) -> None:
        self._scenario, self._speed = scenario, speed
        self.opcua_url: str | None = None
        self.mqtt: Access | None = None
        self.machines: list[dict[str, Any]] = describe(scenario)["machines"]
        self._stack = contextlib.ExitStack()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._runner: Runner | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fieldlab-simulation-")))
            self._truth = folder / "truth.jsonl"
            if any(MACHINES[plan.kind].PROTOCOL == "mqtt" for plan in self._scenario.machine):
                broker = stack.enter_context(Broker())
                self.mqtt = Access(url=broker.url, user=broker.user, password=broker.password, protocol=broker.protocol)
            thread = threading.Thread(target=self._work, name="simulation", daemon=True)
            thread.start()
            stack.callback(self._end, thread)
            if not self._ready.wait(_PATIENCE) or self._failure:
                raise RuntimeError(f"the machines did not come up: {self._failure!r}") from self._failure
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def truth(self) -> Truth:
        """What was sent, made and broken until now."""
        return read_truth(self._truth)

    def control(self, command: str, *arguments: Any, **options: Any) -> Any:
        """A command of `Control`, such as `inject`, `repair`, `pause`, `resume`, `speed`, `status`.

        Raises:
            ControlError: as the command does.
        """

        async def call() -> Any:
            return getattr(self._control, command)(*arguments, **options)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_PATIENCE)

    def wait_for_parts(self, parts: int, *, machine: str = "", timeout: float = 60.0) -> None:
        """Wait until each machine, or that one, has made so many parts.

        Raises:
            TimeoutError: if that takes longer than `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            made = [m["parts"] for m in self.control("status")["machines"] if machine in ("", m["name"])]
            if made and min(made) >= parts:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{self._scenario.name}: {made} parts were made in {timeout:g} s, not {parts}")
            time.sleep(0.02)

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as e:  # noqa: BLE001  told to whoever waits for us
            self._failure = e
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        with TruthWriter(self._truth) as truth:
            async with Runner(self._scenario, truth, mqtt=self.mqtt) as runner:
                self._control = Control(runner)
                self.opcua_url = runner.opcua_url
                self._ready.set()
                await runner.produce(speed=self._speed, end=self._stop)

    def _end(self, thread: threading.Thread) -> None:
        with contextlib.suppress(RuntimeError, AttributeError):  # it never began, or has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(_PATIENCE)
