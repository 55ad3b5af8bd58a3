"""`fieldlab simulate`: runs simulated machines on real protocols, and writes the truth."""

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldlab.cli.common import log_to_stderr

if TYPE_CHECKING:
    from simulators.runner import Access
    from simulators.scenarios import Scenario

DESCRIPTION = """\
Runs simulated machines on real protocols (OPC UA, MQTT), deterministic by seed, and writes the truth of what they sent,
which parts are bad and which faults were injected. A line on standard input ends production (with --hold: the second).
When production has ended it keeps serving the last values, until SIGTERM, Ctrl-C or the end of standard input.
In a terminal it shows the machines live, and keys break, repair, pause and speed up; --control does the same over HTTP.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("simulate", help="run simulated machines on real protocols", description=DESCRIPTION)
    parser.add_argument("scenario", nargs="?", default="hall", metavar="SCENARIO", help="a name or a .toml file (hall)")
    parser.add_argument("--list", action="store_true", help="list the scenarios, with what happens in them")
    parser.add_argument("--seed", type=int, help="replace the scenario's seed")
    parser.add_argument(
        "--duration", type=float, metavar="S", help="replace the scenario's duration, in simulated seconds"
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="simulated seconds a second, or `max` (1)"
    )
    parser.add_argument("--start", type=_instant, metavar="TIME", help="time of the first reading, RFC 3339 (now)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="write the ground truth there, as JSON lines")
    parser.add_argument("--hold", action="store_true", help="serve, and produce when a line arrives on standard input")
    parser.add_argument(
        "--opcua-port", type=int, default=0, metavar="PORT", help="port of the OPC UA server (a free one)"
    )
    parser.add_argument(
        "--opcua-host", default="127.0.0.1", metavar="HOST", help="where it listens (127.0.0.1: this computer alone)"
    )
    parser.add_argument(
        "--opcua-user", metavar="NAME", help="who may read the OPC UA server, and nobody else (everybody)"
    )
    parser.add_argument("--opcua-password-file", type=Path, metavar="FILE", help="file with that user's password")
    parser.add_argument(
        "--opcua-history", type=int, default=0, metavar="N", help="readings that each number keeps as history (0)"
    )
    parser.add_argument(
        "--mqtt", metavar="URL", help="broker to publish to, such as mqtt://127.0.0.1:1883 (one of its own)"
    )
    parser.add_argument(
        "--mqtt-ca-file", default="", metavar="FILE", help="who signed an mqtts:// broker's certificate"
    )
    parser.add_argument("--mqtt-user", default="", metavar="NAME", help="user at that broker")
    parser.add_argument("--mqtt-password-file", type=Path, metavar="FILE", help="file with that user's password")
    parser.add_argument("--mqtt-protocol", choices=("5", "3.1.1"), help="MQTT version to speak there (5, else 3.1.1)")
    parser.add_argument(
        "--mqtt-batch", type=int, default=1, metavar="N", help="readings of a signal in one message (1)"
    )
    parser.add_argument(
        "--broker", choices=("auto", "mosquitto", "amqtt"), default="auto", help="kind of its own broker (auto)"
    )
    parser.add_argument(
        "--digest", action="store_true", help="count and hash readings in --truth, a line a minute: for long runs"
    )
    parser.add_argument(
        "--control", type=int, metavar="PORT", help="take commands over HTTP on that loopback port (0: a free one)"
    )
    parser.add_argument("--plain", action="store_true", help="no live view, also in a terminal")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand: exit status 0, 1 if servers cannot be started, or 2 if the scenario or the usage is wrong."""
    from simulators.scenarios import ScenarioError, load

    log_to_stderr()
    try:
        if args.list:
            _print_list(args.json)
            return 0
        scenario = load(args.scenario, seed=args.seed, duration=args.duration)
    except ScenarioError as e:
        return _fail(str(e), 2)
    if args.mqtt_batch < 1:
        return _fail("--mqtt-batch: must be at least 1", 2)
    if bool(args.opcua_user) != bool(args.opcua_password_file):
        return _fail("--opcua-user and --opcua-password-file: give both", 2)
    return _serve(args, scenario)


def _serve(args: argparse.Namespace, scenario: "Scenario") -> int:
    from simulators.machines import MACHINES
    from simulators.protocols.broker import Broker, BrokerError
    from simulators.protocols.mqtt_device import MqttError
    from simulators.runner import Access
    from simulators.truth import TruthWriter

    needs_broker = any(MACHINES[plan.kind].PROTOCOL == "mqtt" for plan in scenario.machine)
    with contextlib.ExitStack() as stack:
        try:
            truth = stack.enter_context(TruthWriter(args.truth, digest=args.digest))
        except OSError as e:
            return _fail(f"--truth: {e}", 2)
        access: Access | None = None
        about: dict[str, str | None] = {"user": None, "password_file": None, "broker": None}
        try:
            if needs_broker and args.mqtt:
                password = args.mqtt_password_file.read_text("utf-8").rstrip("\r\n") if args.mqtt_password_file else ""
                access = Access(
                    url=args.mqtt,
                    user=args.mqtt_user,
                    password=password,
                    protocol=args.mqtt_protocol,
                    ca_file=args.mqtt_ca_file,
                )
                file = str(args.mqtt_password_file) if args.mqtt_password_file else None
                about = {"user": args.mqtt_user, "password_file": file, "broker": "external"}
            elif needs_broker:
                broker = stack.enter_context(Broker(kind=args.broker))
                access = Access(url=broker.url, user=broker.user, password=broker.password, protocol=broker.protocol)
                about = {"user": broker.user, "password_file": str(broker.password_file), "broker": broker.kind}
        except BrokerError as e:
            return _fail(str(e), 1)
        except OSError as e:
            return _fail(f"--mqtt-password-file: {e}", 2)
        try:
            return asyncio.run(_main(args, scenario, truth, access, about))
        except (MqttError, OSError) as e:
            return _fail(str(e), 1)


async def _main(args: argparse.Namespace, scenario: "Scenario", truth: Any, access: "Access | None", about: Any) -> int:
    from simulators.console import Control, ControlServer, Screen
    from simulators.runner import Runner
    from simulators.scenarios import describe

    loop = asyncio.get_running_loop()
    stop, line, end, eof = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    live = not (args.json or args.plain or args.hold) and sys.stdin.isatty() and sys.stdout.isatty()
    if not live:
        threading.Thread(
            target=_read_stdin, args=(loop, [line, end] if args.hold else [end], eof), name="stdin", daemon=True
        ).start()
    tell = _tell_json if args.json else _tell_person
    async with contextlib.AsyncExitStack() as stack:
        users = {}
        if args.opcua_user:
            users[args.opcua_user] = args.opcua_password_file.read_text("utf-8").rstrip("\r\n")
        runner = Runner(
            scenario,
            truth,
            opcua_port=args.opcua_port,
            opcua_host=args.opcua_host,
            users=users,
            history=args.opcua_history,
            mqtt=access,
            batch=args.mqtt_batch,
        )
        await stack.enter_async_context(runner)
        control = Control(runner)
        server = ControlServer(control, port=args.control or 0)
        if args.control is not None:
            await stack.enter_async_context(server)
        tell(
            "ready",
            scenario=scenario.name,
            seed=scenario.seed,
            opcua=runner.opcua_url,
            mqtt=access.url if access else None,
            mqtt_protocol=access.protocol if access else None,
            **about,
            control=server.url or None,
            machines=describe(scenario)["machines"],
        )
        if args.hold:
            await _first(stop, line, eof)
            if not line.is_set():
                return 0
        if not stop.is_set():
            tell("started")
            screen = None
            if live:
                screen = asyncio.create_task(Screen(control, scenario.title, sys.stdout).run(end))
            complete, missing = await runner.produce(speed=args.speed, start=args.start, stop=stop, end=end)
            end.set()
            if screen:
                await screen
            counts = {"readings": truth.readings, "copies": truth.copies, "parts": truth.parts, "bad": truth.bad}
            tell("finished", **counts, complete=complete, unacknowledged=missing, hash=f"{truth.hash:016x}")
        await _first(stop, eof)
    return 0


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _read_stdin(loop: asyncio.AbstractEventLoop, lines: list[asyncio.Event], eof: asyncio.Event) -> None:
    """Set an event of `lines` for each line that is read, then `eof`.

    In a thread, as the event loop cannot wait for /dev/null; raw reads, so that the exit need not wait for them.
    """
    with contextlib.suppress(RuntimeError):  # the loop has ended
        with contextlib.suppress(OSError):  # closed, or not readable: as its end
            while chunk := os.read(0, 4096):
                for _ in range(min(chunk.count(b"\n"), len(lines))):
                    loop.call_soon_threadsafe(lines.pop(0).set)
        loop.call_soon_threadsafe(eof.set)


def _tell_json(event: str, **detail: Any) -> None:
    print(json.dumps({"event": event, **detail}, ensure_ascii=False), flush=True)


def _tell_person(event: str, **detail: Any) -> None:
    if event == "ready":
        print(f"{detail['scenario']} (seed {detail['seed']}) is ready")
        if detail["opcua"]:
            print(f"  OPC UA  {detail['opcua']}")
        if detail["mqtt"]:
            print(f"  MQTT    {detail['mqtt']} ({detail['broker']}), user {detail['user']}")
            print(f"          password in {detail['password_file']}")
        if detail["control"]:
            print(f"  control {detail['control']}")
        for machine in detail["machines"]:
            print(
                f"  {machine['place']}: {machine['about']} ({machine['protocol']}, {len(machine['signals'])} signals)"
            )
    elif event == "finished":
        print(f"finished: {detail['readings']} readings, {detail['parts']} parts, {detail['bad']} of them bad")
        if detail["unacknowledged"]:
            print(f"  {detail['unacknowledged']} MQTT messages were not acknowledged by the broker")
        print("  the last values stay readable until Ctrl-C", flush=True)
    else:
        print(event, flush=True)
    sys.stdout.flush()


def _print_list(as_json: bool) -> None:
    from simulators.habits import READING_HABITS, SERVER_HABITS
    from simulators.scenarios import describe, load, named

    described = [describe(load(name)) for name in named()]
    if as_json:
        print(json.dumps({"scenarios": described}, ensure_ascii=False))
        return
    for scenario in described:
        print(f"{scenario['name']}: {scenario['title']}")
        for text in scenario["about"].strip().splitlines():
            print(f"  {text}")
        for machine in scenario["machines"]:
            print(f"  - {machine['place']}: {machine['about']}; a part every {machine['cycle_time']:g} s")
            for fault in machine["faults"]:
                end = f"repaired before part {fault['end_part']}" if fault["end_part"] else "never repaired"
                print(f"      {fault['kind']} (severity {fault['severity']:g}) from part {fault['start_part']}, {end}")
        for habit in scenario["habits"]:
            end = "to the end" if habit["end"] is None else f"to {habit['end'] / 1e9:g} s"
            about = {**READING_HABITS, **SERVER_HABITS}[habit["kind"]]
            print(f"  ~ {habit['kind']} of {habit['machine']}: {about}; from {habit['start'] / 1e9:g} s {end}")
        print()


def _fail(message: str, status: int) -> int:
    print(f"fieldlab simulate: {message}", file=sys.stderr)
    return status


def _speed(text: str) -> float:
    value = math.inf if text == "max" else float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0, or `max`")
    return value


def _instant(text: str) -> int:
    """RFC 3339 → ns."""
    import datetime as dt

    when = dt.datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise argparse.ArgumentTypeError("needs a time zone, such as 2026-01-01T06:00:00Z")
    return (when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000
