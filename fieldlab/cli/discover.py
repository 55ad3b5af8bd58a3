"""`fieldlab discover`: looks at a server or listens to a broker, changes nothing, and prints a configuration for it."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from fieldlab.cli.common import log_to_stderr
from fieldlab.errors import ConfigError

if TYPE_CHECKING:
    from edge.proposal import Proposal
    from edge.sources.base import SourceContext

_FILES = ("password_file", "user_cert_file", "user_key_file", "ca_file", "cert_file", "key_file")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("discover", help="propose a configuration for a server", description=__doc__)
    parser.add_argument("url", help="opc.tcp://host:port/path, mqtt://host:port or mqtts://host:port")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the configuration in it")
    parser.add_argument("--name", default="edge-1", help="the agent's name (default: %(default)s)")
    parser.add_argument("--data", help="the agent's data folder (default: var/NAME)")
    for level in ("site", "area", "line"):
        parser.add_argument(f"--{level}", default=level, help=f"{level} of the machines (default: %(default)s)")
    parser.add_argument("--username", default="", help="user name; anonymous if absent")
    parser.add_argument("--password-file", type=Path, help="file that only its owner may read")
    parser.add_argument("--timeout", default="4s", help="of a request, OPC UA (default: %(default)s)")
    parser.add_argument("--security", default="best", help="OPC UA: best, none or POLICY/MODE (default: %(default)s)")
    parser.add_argument("--user-cert-file", type=Path, help="OPC UA: certificate of the user")
    parser.add_argument("--user-key-file", type=Path, help="OPC UA: its private key")
    parser.add_argument("--max-nodes", type=int, default=20_000, help="OPC UA: nodes looked at (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="MQTT: how long to listen (default: %(default)s)")
    parser.add_argument("--topics", action="append", help="MQTT: filter to listen to; may be repeated (default: #)")
    parser.add_argument("--protocol", choices=("5", "3.1.1"), default="5", help="MQTT (default: %(default)s)")
    for key in ("ca", "cert", "key"):
        parser.add_argument(f"--{key}-file", type=Path, help="MQTT with TLS")
    parser.add_argument("--server-name", default="", help="MQTT with TLS: the name in the broker's certificate")
    parser.add_argument("--pinned-certificate", help="MQTT with TLS: the only one it may show: fingerprint or file")


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration; exit status 1 if nothing was found."""
    import msgspec

    from edge.proposal import Frame, to_toml
    from edge.sources.base import SourceContext

    log_to_stderr()
    scheme = urlparse(arguments.url).scheme
    data = arguments.data or f"var/{arguments.name}"
    frame = Frame(name=arguments.name, data=data, **{k: getattr(arguments, k) for k in ("site", "area", "line")})
    context = SourceContext(
        name=f"{'opcua' if scheme == 'opc.tcp' else 'mqtt'}-0",
        agent=frame.name,
        index=0,
        site=frame.site,
        area=frame.area,
        line=frame.line,
        data=Path(data),
    )
    if scheme == "opc.tcp":
        proposal = _opcua(arguments, context)
    elif scheme in ("mqtt", "mqtts"):
        proposal = _mqtt(arguments, context)
    else:
        raise ConfigError("must begin with opc.tcp://, mqtt:// or mqtts://", key="url")
    text = to_toml(proposal, frame)
    signals = sum(len(machine.signals) for machine in proposal.machines)
    found_any = signals > 0 or (scheme != "opc.tcp" and len(proposal.sources) > 0)
    if arguments.json:
        found = {"ok": found_any, **msgspec.to_builtins(proposal, enc_hook=str), "configuration": text}
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif found_any:
        sys.stdout.write(text)
    if not found_any:
        print(f"fieldlab: nothing to read was found at {arguments.url}", file=sys.stderr)
        for note in proposal.notes:
            print(f"fieldlab: {note}", file=sys.stderr)
        return 1
    return 0


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, as keys of a source; files as absolute paths, wherever the output is put."""
    found = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    return {name: value.absolute() if name in _FILES else value for name, value in found.items()}


def _opcua(arguments: argparse.Namespace, context: "SourceContext") -> "Proposal":
    import msgspec

    from edge.sources.opcua.config import OpcuaConfig, validate_connection
    from edge.sources.opcua.discover import discover
    from fieldlab.config import Duration

    try:
        timeout = Duration.parse(arguments.timeout)
    except ValueError as e:
        raise ConfigError(str(e), key="timeout") from None
    if arguments.max_nodes < 1:
        raise ConfigError("must be at least 1", key="max-nodes")
    keys = {"kind": "opcua", "url": arguments.url, "security": arguments.security}
    keys |= _given(arguments, "username", "password_file", "user_cert_file", "user_key_file")
    config = msgspec.structs.replace(OpcuaConfig(signal=(), **keys), timeout=timeout)
    validate_connection(config)
    if timeout != OpcuaConfig(kind="opcua", url="", signal=()).timeout:
        keys["timeout"] = arguments.timeout
    return asyncio.run(discover(config, context, keys, max_nodes=arguments.max_nodes))


def _mqtt(arguments: argparse.Namespace, context: "SourceContext") -> "Proposal":
    from edge.sources.mqtt.config import MqttConfig
    from edge.sources.mqtt.discover import default_filters, discover

    if not 0 < arguments.seconds <= 3600:
        raise ConfigError("must be more than 0 and at most 3600", key="seconds")
    keys = {"kind": "mqtt", "url": arguments.url, "protocol": arguments.protocol}
    keys |= _given(arguments, "username", "password_file", "ca_file", "cert_file", "key_file", "server_name")
    if pinned := arguments.pinned_certificate:
        keys["pinned_certificate"] = Path(pinned).absolute() if Path(pinned).is_file() else Path(pinned)
    config = MqttConfig(**keys, topics=tuple(arguments.topics or default_filters(arguments.username)))
    return asyncio.run(discover(config, context, keys, seconds=arguments.seconds))
