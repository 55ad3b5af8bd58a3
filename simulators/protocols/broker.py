"""A broker of our own on loopback: mosquitto where it is installed, else amqtt. Never anonymous.

mosquitto keeps what a sleeping subscriber has not received, also through a restart. amqtt needs no installation; it
speaks MQTT 3.1.1 only and, in 0.12, does not send an unacknowledged message again after a dropped connection: good for
a demo, not as a reference. It loses messages of anonymous sessions, so it too gets a user.
"""

import asyncio
import base64
import contextlib
import ctypes
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import structlog

_LOOPBACK = "127.0.0.1"
_SBIN = ("/usr/sbin", "/usr/local/sbin")  # where Debian keeps it; not on everybody's PATH
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PATIENCE = 20.0  # s, for a broker to accept connections

_log = structlog.get_logger()


class BrokerError(Exception):
    """The broker cannot be started; the text says why."""


class Broker:
    """A context manager: a broker is up inside it, and its folder is removed after it.

    Args:
        port: loopback port; 0 takes a free one.
        kind: `auto` takes mosquitto if it is installed.

    Attributes:
        kind: `mosquitto` or `amqtt`.
        url: such as `mqtt://127.0.0.1:1883`.
        user: its one user.
        password: made at start.
        password_file: the password on one line, readable by its owner only.
        protocol: the newest MQTT it speaks, `5` or `3.1.1`.
    """

    def __init__(self, *, port: int = 0, kind: Literal["auto", "mosquitto", "amqtt"] = "auto") -> None:
        self._binary = find_mosquitto() if kind in ("auto", "mosquitto") else None
        if kind == "mosquitto" and self._binary is None:
            raise BrokerError("mosquitto is not installed: needs Debian package mosquitto")
        self.kind = "mosquitto" if self._binary else "amqtt"
        self.protocol: Literal["5", "3.1.1"] = "5" if self._binary else "3.1.1"
        self.port = port or _free_port()
        self.url = f"mqtt://{_LOOPBACK}:{self.port}"
        self.user = "fieldlab"
        self.password = secrets.token_urlsafe(18)
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        with socket.socket() as s:  # else we would take somebody else's broker for ours
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((_LOOPBACK, self.port))
            except OSError as e:
                raise BrokerError(f"{self.kind} cannot listen on port {self.port}: {e.strerror}") from None
        self._folder = Path(tempfile.mkdtemp(prefix="fieldlab-broker-"))
        self.password_file = self._folder / "password"
        _write_secret(self.password_file, self.password + "\n")
        try:
            if self._binary:
                self._start_mosquitto(self._binary)
            else:
                self._start_amqtt()
        except BaseException:
            self.close()
            raise
        _log.info("broker_started", kind=self.kind, url=self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the broker and remove its folder."""
        self._stop()
        self._stop = lambda: None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_mosquitto(self, binary: str) -> None:
        passwords = self._folder / "passwords"
        _write_secret(passwords, f"{self.user}:{_mosquitto_hash(self.password)}\n")
        lines = [
            "per_listener_settings false",
            f"listener {self.port} {_LOOPBACK}",
            "allow_anonymous false",
            f"password_file {passwords}",
            "persistence true",
            f"persistence_location {self._folder}/",
            "max_queued_messages 1000000",  # the default of 1,000 drops the rest silently
            "max_inflight_messages 1000",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            *(["user root"] if os.geteuid() == 0 else []),  # else it drops its rights and cannot read this folder
        ]
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        log = self._folder / "mosquitto.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  our own configuration, and a program that find_mosquitto() found
                [binary, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509  one system call, prepared before the fork
            )

        def stop() -> None:
            for _ in range(10):  # mosquitto forgets a SIGTERM that comes just before its main loop
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                    return
            process.kill()
            process.wait()

        self._stop = stop
        self._await_port(lambda: process.poll() is None, lambda: log.read_text("utf-8", "replace")[-1000:])

    def _start_amqtt(self) -> None:
        try:
            from amqtt.broker import Broker as Amqtt  # noqa: PLC0415  heavy, and an extra
            from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: PLC0415  comes with amqtt
        except ImportError as e:
            raise BrokerError(
                f"no broker: mosquitto is not on the PATH, and amqtt is not installed ({e}); "
                "install mosquitto, or run pip install '.[simulators]' in Fieldlab's folder, or give --mqtt"
            ) from None
        passwords = self._folder / "passwords"
        hasher = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1)  # a secret of one run, on loopback
        _write_secret(passwords, f"{self.user}:{hasher.hash(self.password)}\n")
        config: dict[str, Any] = {
            "listeners": {"default": {"type": "tcp", "bind": f"{_LOOPBACK}:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}},
        }
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="amqtt", daemon=True)
        thread.start()

        async def start() -> Any:
            broker = Amqtt(config)
            await broker.start()
            return broker

        async def shutdown() -> None:
            await asyncio.wait_for(broker.shutdown(), 5)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        def stop() -> None:
            try:
                asyncio.run_coroutine_threadsafe(shutdown(), loop).result(10)
            except Exception as e:  # noqa: BLE001  whatever it is, the demo is over and the thread must end
                _log.warning("broker_stop_failed", kind="amqtt", error=repr(e))
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            if not thread.is_alive():
                loop.close()

        try:
            broker = asyncio.run_coroutine_threadsafe(start(), loop).result(_PATIENCE)
        except Exception as e:
            loop.call_soon_threadsafe(loop.stop)
            raise BrokerError(f"amqtt does not start on port {self.port}: {e}") from e
        self._stop = stop

    def _await_port(self, alive: Callable[[], bool], why: Callable[[], str]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            if not alive():
                raise BrokerError(f"{self.kind} does not start on port {self.port}: {why().strip()}")
            try:
                socket.create_connection((_LOOPBACK, self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise BrokerError(f"{self.kind} does not accept connections on port {self.port}") from None
                time.sleep(0.01)
            else:
                return


def find_mosquitto() -> str | None:
    """The mosquitto program, if it is installed."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def _mosquitto_hash(password: str) -> str:
    """A line of mosquitto's password file: PBKDF2 with SHA-512, 101 rounds, as mosquitto_passwd of 2.0 writes it."""
    salt = secrets.token_bytes(12)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def _end_with_parent() -> Callable[[], None] | None:
    """Asks Linux to end the broker when we are killed; tied to the calling thread, so only the main one may ask."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _write_secret(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((_LOOPBACK, 0))
        port: int = s.getsockname()[1]
    return port
