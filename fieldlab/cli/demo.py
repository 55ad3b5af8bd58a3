"""`fieldlab demo`: simulated machines, an agent with its board, and what came of it against the ground truth."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fieldlab.cli.common import ask_agent
from fieldlab.cli.demo_config import configuration as configuration  # noqa: PLC0414  tests build theirs with it
from fieldlab.errors import RefusedError

_START = 60.0  # seconds for servers and agent to be up, on a slow machine
_SETTLE = 60.0  # seconds for the last reading to be stored
_LONGEST = 600.0  # seconds of production without --seconds; the board stays up until Ctrl-C


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("demo", help="the whole chain on simulated machines", description=__doc__)
    parser.add_argument("--seconds", type=float, metavar="N", help="produce for N seconds, then sum up (until Ctrl-C)")
    parser.add_argument("--headless", action="store_true", help="no board")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object on stdout")
    parser.add_argument("--scenario", default="hall", help="see `fieldlab simulate --list` (hall)")
    parser.add_argument("--seed", type=int, help="replace the scenario's seed")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep configuration, data and truth there")
    parser.add_argument("--port", type=int, default=8321, help="the board's port; another if it is taken (8321)")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; exit status 0 if no reading was lost."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # also when the terminal is closed: nothing of ours may stay behind
        signal.signal(number, _interrupt)
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fieldlab-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        return _Demo(arguments, folder, stack).run()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class _Demo:
    """One run: processes, progress and summary."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> None:
        self._arguments = arguments
        self._folder = folder
        self._stack = stack
        self._data = folder / "data"
        self._truth = folder / "truth.jsonl"
        self._events: dict[str, dict[str, Any]] = {}
        self._began = 0.0

    def run(self) -> int:
        arguments = self._arguments
        seconds = arguments.seconds or _LONGEST
        _say("starting the simulated machines …")
        simulator = self._start_simulator(seconds)
        ready = self._await(lambda: self._events.get("ready"), simulator, "the simulated machines")
        port = 0 if arguments.headless else _free_port(arguments.port)
        config = self._folder / "fieldlab.toml"
        config.write_text(configuration(ready, port=port), "utf-8")
        _say("starting the agent …")
        agent = self._start("agent", str(config))
        self._await(self._connected, agent, "the agent")
        if port:
            _say(f"board: http://127.0.0.1:{port}/")
        _send_line(simulator)
        self._began = time.monotonic()
        stay = bool(port) and arguments.seconds is None
        try:
            self._watch(simulator, agent, seconds)
        except KeyboardInterrupt:
            stay = False
            _say("ending …")
            _send_line(simulator)  # it ends production, and serves what it has sent
            self._await(lambda: self._events.get("finished"), simulator, "the end of production")
        result = self._sum_up(agent)
        if arguments.json:
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
        else:
            from fieldlab.cli.score import print_score

            print_score(result)
        if stay:
            _say(f"the board stays at http://127.0.0.1:{port}/ until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                agent.wait()
        return 0 if result["readings"]["lost"] == 0 else 1

    # ---- processes ----

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        name = arguments[0]
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "fieldlab.cli", *arguments],
            stdin=subprocess.PIPE if name == "simulate" else subprocess.DEVNULL,
            stdout=subprocess.PIPE if name == "simulate" else log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours: the last readings are still stored
        )
        self._stack.callback(_end, process)
        return process

    def _start_simulator(self, seconds: float) -> "subprocess.Popen[bytes]":
        arguments = self._arguments
        seed = [] if arguments.seed is None else ["--seed", str(arguments.seed)]
        process = self._start(
            "simulate",
            arguments.scenario,
            "--hold",
            "--json",
            "--truth",
            str(self._truth),
            "--duration",
            str(seconds),
            *seed,
        )

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                with contextlib.suppress(ValueError, KeyError):
                    event = json.loads(line)
                    self._events[event["event"]] = event

        threading.Thread(target=read, name="simulator", daemon=True).start()
        return process

    def _await(self, found: Callable[[], Any], process: "subprocess.Popen[bytes]", what: str) -> Any:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            if result := found():
                return result
            if process.poll() is not None:
                raise RefusedError(f"{what} ended at start:\n{self._logs()}")
            time.sleep(0.1)
        raise RefusedError(f"{what} did not come up within {_START:.0f} s:\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(path.read_text("utf-8", "replace")[-2000:] for path in sorted(self._folder.glob("*.log")))

    def _connected(self) -> dict[str, Any] | None:
        status: dict[str, Any] | None = ask_agent(self._data, "/status")
        return status if status and all(source["connected"] for source in status["sources"]) else None

    # ---- progress and summary ----

    def _watch(self, simulator: "subprocess.Popen[bytes]", agent: "subprocess.Popen[bytes]", seconds: float) -> None:
        with _progress() as show:
            while "finished" not in self._events:
                for process, name in ((simulator, "simulator"), (agent, "agent")):
                    if process.poll() is not None:
                        raise RefusedError(f"the {name} ended:\n{self._logs()}")
                status = ask_agent(self._data, "/status")
                if status is not None:
                    show(min((time.monotonic() - self._began) / seconds, 1.0), status)
                time.sleep(0.5)

    def _sum_up(self, agent: "subprocess.Popen[bytes]") -> dict[str, Any]:
        """The score, once nothing more comes: everything sent is stored and every part judged, or time is up."""
        from fieldlab.cli.score import score_agent

        _say("comparing the store with the truth …")
        end = time.monotonic() + _SETTLE
        while True:
            result = score_agent(self._truth, self._data)
            settled = result["readings"]["lost"] == 0 and result["parts"]["unjudged"] <= len(
                self._events["ready"]["machines"]
            )
            if settled or time.monotonic() > end or agent.poll() is not None:
                break
            time.sleep(0.5)
        return result


def _send_line(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float, dict[str, Any]], None]]:
    """One line, rewritten in a terminal; a line every ten seconds elsewhere."""
    terminal = sys.stderr.isatty()
    shown = 0.0

    def show(share: float, status: dict[str, Any]) -> None:
        nonlocal shown
        ledger = status["ledger"]
        text = f"readings {ledger['committed']:>8} committed {ledger['stored']:>8} stored {ledger['lost']} lost"
        if terminal:
            bar = ("█" * round(share * 24)).ljust(24, "░")
            sys.stderr.write(f"\r\x1b[K{bar} {share:4.0%}  {text}")
            sys.stderr.flush()
        elif time.monotonic() - shown > 10:
            shown = time.monotonic()
            _say(f"{share:4.0%}  {text}")

    try:
        yield show
    finally:
        if terminal:
            sys.stderr.write("\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return int(s.getsockname()[1])
    raise RefusedError("no port is free on 127.0.0.1")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and whatever it started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
