"""Runs a scenario: serves its machines on their protocols, lets them produce in paced time, and writes the truth.

async with Runner(scenario, truth, mqtt=Access(url=..., user=..., password=...)) as runner:
    await runner.produce()
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec

from simulators.machines import MACHINES, Machine, Reading
from simulators.protocols.mqtt_device import MqttDevice, MqttError
from simulators.protocols.opcua_server import OpcUaServer
from simulators.scenarios import Scenario, machines
from simulators.truth import TruthWriter

_PATIENCE = 20.0  # s, for a broker to answer
_LAST_WORDS = 2.0  # s, for the last acknowledgements when production is stopped
_FIRST_TRY = 3.0  # s: a broker that does not know MQTT 5 may never answer


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a broker. `protocol` None tries MQTT 5, then 3.1.1."""

    url: str
    user: str = ""
    password: str = ""
    protocol: Literal["5", "3.1.1"] | None = None


class Runner:
    """Serves and runs the machines of a scenario; an asynchronous context manager.

    Args:
        scenario: what to run.
        truth: where to write what was sent.
        opcua_port: port of the OPC UA server; 0 takes a free one.
        mqtt: the broker; needed if a machine speaks MQTT.
        batch: how many readings of a signal go into one MQTT message.

    Attributes:
        opcua_url: where the OPC UA server listens; None without OPC UA machines.
    """

    def __init__(
        self,
        scenario: Scenario,
        truth: TruthWriter,
        *,
        opcua_port: int = 0,
        mqtt: Access | None = None,
        batch: int = 1,
    ) -> None:
        self._scenario, self._truth, self._mqtt, self._batch = scenario, truth, mqtt, batch
        signals = {p.name: MACHINES[p.kind].SIGNALS for p in scenario.machine if MACHINES[p.kind].PROTOCOL == "opcua"}
        self._server = OpcUaServer(signals, port=opcua_port) if signals else None
        self._devices: dict[str, MqttDevice] = {}
        self.opcua_url: str | None = None

    async def __aenter__(self) -> Self:
        try:
            for plan in self._scenario.machine:
                if MACHINES[plan.kind].PROTOCOL == "mqtt":
                    self._devices[plan.name] = await self._connect(self._scenario.place(plan.name))
            if self._server:
                await self._server.start()
                self.opcua_url = self._server.url
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def produce(
        self,
        *,
        speed: float = 1.0,
        start: int | None = None,
        stop: asyncio.Event | None = None,
        end: asyncio.Event | None = None,
    ) -> tuple[bool, int]:
        """Produce all parts, or until `end` or `stop`.

        Args:
            speed: simulated seconds a second; infinite for as fast as it can.
            start: time of the first reading, ns; None for now. Whole microseconds are kept.
            stop: ends production early and at once; the parts in work are not finished.
            end: ends production early, but everything sent is still delivered.

        Returns:
            Whether everything was produced, and how many MQTT messages were never acknowledged.

        Raises:
            MqttError: if paho refuses a message.
        """
        begin = time.time_ns() if start is None else start
        made = machines(self._scenario, begin)
        stop, end = stop or asyncio.Event(), end or asyncio.Event()
        watch = asyncio.create_task(self._abandon_at(stop, end))
        try:
            async with asyncio.TaskGroup() as group:
                for machine in made:
                    group.create_task(self._run(machine, speed, end), name=f"machine {machine.name}")
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None
        finally:
            watch.cancel()
        patience = _LAST_WORDS if stop.is_set() else _PATIENCE
        missing = sum([await device.flush(patience) for device in self._devices.values()])
        return all(machine.done for machine in made) and not end.is_set(), missing

    async def _abandon_at(self, stop: asyncio.Event, end: asyncio.Event) -> None:
        await stop.wait()
        end.set()
        for device in self._devices.values():
            device.abandon()

    async def _run(self, machine: Machine, speed: float, end: asyncio.Event) -> None:
        """One machine at its own pace; what is late is sent at once, with its own time."""
        place = self._scenario.place(machine.name)
        device = self._devices.get(machine.name)
        begun = time.monotonic_ns()
        tick = 0
        while not machine.done and not end.is_set():
            if math.isfinite(speed):
                elapsed = (time.monotonic_ns() - begun) * speed
                tick = max(tick, int(elapsed // machine.period))
                ahead = (tick * machine.period - elapsed) / speed / 1e9
                if ahead > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(end.wait(), ahead)
                        break
            else:
                await asyncio.sleep(0)
            step = machine.step(machine.start + tick * machine.period)
            self._truth.write_faults(place, step.faults)
            if device:
                await device.send(step.readings)
            elif self._server:
                self._truth.write_readings(place, await self._server.write(machine.name, step.readings))
            self._truth.write_parts(place, step.parts)
            tick += 1
        if not machine.done:
            self._truth.write_faults(place, machine.stop(machine.start + tick * machine.period))

    async def _connect(self, place: str) -> MqttDevice:
        if self._mqtt is None:
            raise MqttError(f"{place} speaks MQTT, and there is no broker")
        access = self._mqtt

        def sent(readings: Sequence[Reading]) -> None:
            self._truth.write_readings(place, readings)

        def device(protocol: Literal["5", "3.1.1"]) -> MqttDevice:
            return MqttDevice(
                access.url,
                place,
                sent,
                user=access.user,
                password=access.password,
                protocol=protocol,
                batch=self._batch,
            )

        made = device(access.protocol or "5")
        try:
            await made.connect(_PATIENCE if access.protocol else _FIRST_TRY)
        except MqttError:
            if access.protocol is not None:
                raise
            made = device("3.1.1")
            await made.connect(_PATIENCE)
        return made

    async def _close(self) -> None:
        for device in self._devices.values():
            await device.close()
        self._devices = {}
        if self._server and self.opcua_url:
            await self._server.stop()
            self.opcua_url = None
