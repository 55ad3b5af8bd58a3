"""Runs a scenario: serves its machines on their protocols, lets them produce in paced time, and writes the truth.

async with Runner(scenario, truth, mqtt=Access(url=..., user=..., password=...)) as runner:
    await runner.produce()
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self

import msgspec

from simulators.habits import ReadingHabits
from simulators.machines import MACHINES, FaultEvent, Machine, Reading
from simulators.pace import Pace
from simulators.protocols.dialects import dialect_of
from simulators.protocols.mqtt_device import MqttDevice, MqttError
from simulators.protocols.mqtt_fleet import Device, Fleet
from simulators.protocols.opcua_server import OpcUaServer
from simulators.protocols.troubles import Troubles
from simulators.scenarios import MachinePlan, Scenario, machines
from simulators.truth import TruthWriter

_PATIENCE = 20.0  # s, for a broker to answer
_LAST_WORDS = 2.0  # s, for the last acknowledgements when production is stopped
_FLEET = 50  # machines with plain JSON, from which on paho's thread for each is too much
_FIRST_TRY = 3.0  # s: a broker that does not know MQTT 5 may never answer


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a broker. `protocol` None tries MQTT 5, then 3.1.1; `ca_file` says who signed an mqtts:// one."""

    url: str
    user: str = ""
    password: str = ""
    protocol: Literal["5", "3.1.1"] | None = None
    ca_file: str = ""


class Runner:
    """Serves and runs the machines of a scenario; an asynchronous context manager.

    Args:
        scenario: what to run.
        truth: where to write what was sent.
        opcua_port: port of the OPC UA server; 0 takes a free one.
        opcua_host: where it listens; loopback, unless in a container.
        mqtt: the broker; needed if a machine speaks MQTT.
        batch: how many readings of a signal go into one MQTT message.
        users: name → password of those who may read the OPC UA server; none: everybody may.
        history: how many of its last readings a number on the OPC UA server keeps.

    Attributes:
        opcua_url: where the OPC UA server listens; None without OPC UA machines.
        machines: those that produce, once they do.
        pace: how fast simulated time passes while they do.
        latest: machine → signal → its last reading.
        made: machine → how many parts are finished, and how many of them are bad.
    """

    def __init__(
        self,
        scenario: Scenario,
        truth: TruthWriter,
        *,
        opcua_port: int = 0,
        opcua_host: str = "127.0.0.1",
        mqtt: Access | None = None,
        batch: int = 1,
        users: Mapping[str, str] | None = None,
        history: int = 0,
    ) -> None:
        self._scenario, self._truth, self._mqtt, self._batch = scenario, truth, mqtt, batch
        made = machines(scenario, 0)
        self._signals = {m.name: m.signals for m in made}
        spoken = {m.name: m.signals for m in made if m.PROTOCOL == "opcua"}
        self._habits = scenario.habits()
        days = 1 if any(h.kind == "expiring_certificate" for h in self._habits) else 365
        self._server: OpcUaServer | None = None
        if spoken:
            self._server = OpcUaServer(
                spoken, host=opcua_host, port=opcua_port, certificate_days=days, users=users, history=history
            )
        self._devices: dict[str, MqttDevice | Device] = {}
        self._fleet: Fleet | None = None
        self._troubles = Troubles(self._habits, self._server)
        self._begin = 0
        self.opcua_url: str | None = None
        self.machines: list[Machine] = []
        self.pace = Pace()
        self.latest: dict[str, dict[str, Reading]] = {}
        self.made: dict[str, tuple[int, int]] = {}

    async def __aenter__(self) -> Self:
        try:
            plain = [p for p in self._scenario.machine if self._scenario.dialect(p) == "json"]
            if len(plain) >= _FLEET:
                await self._connect_fleet(plain)
            for plan in self._scenario.machine:
                if MACHINES[plan.kind].PROTOCOL == "mqtt" and plan.name not in self._devices:
                    self._devices[plan.name] = await self._connect(plan)
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
        self._begin = begin - begin % 1000
        made = self.machines = machines(self._scenario, begin)
        self.pace = Pace(speed)
        self.latest = {machine.name: {} for machine in made}
        self._truth.write_habits(self._habits, self._begin)
        stop, end = stop or asyncio.Event(), end or asyncio.Event()
        watches = [asyncio.create_task(self._abandon_at(stop, end)), asyncio.create_task(self._wake_at(end))]
        try:
            async with asyncio.TaskGroup() as group:
                for machine in made:
                    group.create_task(self._run(machine, end), name=f"machine {machine.name}")
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None
        finally:
            for watch in watches:
                watch.cancel()
        patience = _LAST_WORDS if stop.is_set() else _PATIENCE
        missing = sum([await device.flush(patience) for device in self._devices.values()])
        return all(machine.done for machine in made) and not end.is_set(), missing

    async def _abandon_at(self, stop: asyncio.Event, end: asyncio.Event) -> None:
        await stop.wait()
        end.set()
        for device in self._devices.values():
            device.abandon()

    async def _wake_at(self, end: asyncio.Event) -> None:
        await end.wait()
        self.pace.wake()

    def reached(self) -> int:
        """Simulated ns since the beginning that machines have come to."""
        newest = [r.ts for signals in self.latest.values() for r in signals.values()]
        return max(0, max(newest, default=self._begin) - self._begin)

    async def _run(self, machine: Machine, end: asyncio.Event) -> None:
        """One machine at its own pace; what is late is sent at once, with its own time."""
        place = self._scenario.place(machine.name)
        habits = ReadingHabits(self._habits, machine.name, self._scenario.seed, self._begin)
        offset = machine.start - self._begin
        tick = 0
        while not machine.done:
            elapsed = self.pace.elapsed() - offset
            if math.isfinite(elapsed):
                tick = max(tick, int(elapsed // machine.period))
            if not await self.pace.until(offset + tick * machine.period, end):
                break
            now = machine.start + tick * machine.period
            await self._troubles.come_to(now - self._begin)
            step = machine.step(now)
            self._truth.write_faults(place, self._as_told(machine, step.faults))
            await self._send(machine, place, habits.apply(step.readings, now))
            self._truth.write_parts(place, step.parts)
            parts, bad = self.made.get(machine.name, (0, 0))
            self.made[machine.name] = parts + len(step.parts), bad + sum(not p.good for p in step.parts)
            self.latest[machine.name].update((r.signal, r) for r in step.readings)
            tick += 1
        if not machine.done:
            ended = machine.stop(machine.start + tick * machine.period)
            self._truth.write_faults(place, self._as_told(machine, ended))
        await self._send(machine, place, habits.flush())

    async def _send(self, machine: Machine, place: str, readings: list[Reading]) -> None:
        device = self._devices.get(machine.name)
        if device:
            await device.send(readings)
        elif self._server:
            self._truth.write_readings(place, await self._server.write(machine.name, readings))

    def _as_told(self, machine: Machine, faults: list[FaultEvent]) -> list[FaultEvent]:
        """Faults with the signals that the machine's dialect can tell."""
        device = self._devices.get(machine.name)
        told = device.told if device else None
        if told is None:
            return faults
        return [f._replace(signals=tuple(s for s in f.signals if s in told)) for f in faults]

    async def _connect(self, plan: MachinePlan) -> MqttDevice:
        place = self._scenario.place(plan.name)
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
                ca_file=access.ca_file,
                protocol=protocol,
                batch=self._batch,
                dialect=dialect_of(self._scenario.dialect(plan), place, self._signals[plan.name]),
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

    async def _connect_fleet(self, plans: Sequence[MachinePlan]) -> None:
        """Many machines, each with a connection of its own, without a thread for each."""
        if self._mqtt is None:
            raise MqttError(f"{len(plans)} machines speak MQTT, and there is no broker")
        access = self._mqtt
        places = [self._scenario.place(plan.name) for plan in plans]
        names = ["sim-" + place.replace("/", "-") for place in places]
        self._fleet = await Fleet(access.url, names, user=access.user, password=access.password).__aenter__()
        for plan, place, device in zip(plans, places, self._fleet.devices, strict=True):
            device.place, device.taken = place, partial(self._truth.write_readings, place)
            self._devices[plan.name] = device

    async def _close(self) -> None:
        for device in self._devices.values():
            if isinstance(device, MqttDevice):
                await device.close()
        self._devices = {}
        if self._fleet:
            await self._fleet.__aexit__(None, None, None)
            self._fleet = None
        if self._server and self.opcua_url:
            await self._server.stop()
            self.opcua_url = None
