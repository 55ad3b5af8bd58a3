"""`fieldlab agent`: runs an edge agent, or an ingest worker, until SIGTERM; SIGHUP: it reads the file again."""

import argparse
import asyncio
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fieldlab.cli.common import log_to_stderr

if TYPE_CHECKING:
    from edge.agent import BoardRoutes


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("agent", help="run an edge agent", description=__doc__)
    parser.add_argument("config", type=Path, help="configuration file (TOML)")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; exit status 0 then."""
    log_to_stderr()
    os.umask(0o077)  # what it writes is its owner's alone
    from edge.process import share_memory_between_threads

    share_memory_between_threads()
    asyncio.run(_run(arguments.config))
    return 0


async def _run(path: Path) -> None:
    from edge.agent import Agent
    from edge.config import load

    config = load(path)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # before the start, which may take long after a crash
        loop.add_signal_handler(number, asked.set)
    agent = Agent(config, board=_board() if config.agent.http else None)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        loop.add_signal_handler(signal.SIGHUP, agent.reload)
    await agent.run(asked)


def _board() -> "BoardRoutes | None":
    """The board's routes, if the extra `board` is installed."""
    if find_spec("plotly") is None:
        return None
    from board.app import routes

    return lambda reader, status, closing: routes(reader, status, closing=closing)
