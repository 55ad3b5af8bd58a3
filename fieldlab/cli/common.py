"""What several subcommands share: where the configuration is, how logs look, how a running agent is asked."""

import argparse
import contextlib
import http.client
import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, TextIO, cast

from fieldlab.errors import RefusedError
from fieldlab.secrets import hide

# structlog takes these if they are installed, which costs an agent 4 MB: for coloured tracebacks, for green threads.
_UNUSED = [name for name in ("rich", "greenlet") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]  # None stands for "not installed"
import structlog  # noqa: E402  behind what it shall not find

for _name in _UNUSED:
    del sys.modules[_name]


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config`, for commands about an agent's data."""
    parser.add_argument("--config", type=Path, help="default: $FIELDLAB_CONFIG, else ./fieldlab.toml")


def config_path(given: Path | None) -> Path:
    """The configuration file that is meant."""
    return given or Path(os.environ.get("FIELDLAB_CONFIG", "fieldlab.toml"))


class _Stderr(io.TextIOBase):
    """stderr as it is now. Nobody may die because the log's reader went away, the journal's thread least of all."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def log_to_stderr() -> None:
    """Logs to stderr: one JSON object a line for a service, coloured words for a person at a terminal.

    Tracebacks come without the values of variables, among which secrets could be.
    """
    human = sys.stderr.isatty()
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    renderers: list[Any] = [plain] if human else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if human else [tracebacks]),
            *renderers,
            lambda _logger, _level, text: hide(str(text)),
        ],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
    )


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over the agent's Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        # The socket's path may be longer than the 107 bytes of an address: reach it through its folder.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


def ask_agent(data: Path, path: str, method: str = "GET", *, timeout: float = 10.0) -> Any:
    """The answer of the agent that runs on a data folder, or None if none runs; `timeout` is in seconds.

    Raises:
        RefusedError: if it runs but does not answer.
    """
    connection = _LocalConnection(data / "agent.sock", timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, http.client.HTTPException) as e:
        raise RefusedError(f"the agent on {data} does not answer: {e}") from e
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise RefusedError(
            f"the agent on {data} answered {answer.status} to {path}: {body[:200].decode(errors='replace')}"
        )
    return json.loads(body)
