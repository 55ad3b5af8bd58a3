"""`fieldlab certs`: this agent's certificate, and the OPC UA servers that it trusts."""

import argparse
import datetime as dt
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldlab.cli.common import add_config_option, config_path, log_to_stderr
from fieldlab.errors import RefusedError

if TYPE_CHECKING:
    from edge.sources.opcua.certificates import Identity, Pin

_ABOUT = {
    "create": "make the agent's certificate, which servers with a trust list must be told to trust",
    "list": "own, trusted and refused certificates, with their expiry; exit status 1 if one in use has expired",
    "trust": "trust a refused or changed server certificate, by its fingerprint",
    "reject": "trust a server certificate no longer: from the next connection on it is refused, until it is trusted",
    "renew": "make a new certificate; the old one stays in use where a server does not take the new one yet",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("certs", help="certificates of OPC UA", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, about in _ABOUT.items():
        action = actions.add_parser(name, help=about, description=about)
        add_config_option(action)
        action.add_argument("--data", type=Path, help="the agent's data folder, instead of --config")
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")
        if name in ("trust", "reject"):
            action.add_argument("fingerprint", help="SHA-256, hexadecimal; the first 16 digits will do")
        if name in ("create", "renew"):
            action.add_argument("--name", help="the agent's name, with --data (default: edge-1)")
        if name == "renew":
            action.add_argument("--finish", action="store_true", help="drop the old certificate now")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and print what is so now."""
    from edge.sources.opcua import certificates

    log_to_stderr()
    folder, agent = _folder(arguments)
    if arguments.action == "create":
        if (folder / "own" / "client.der").exists():
            raise RefusedError(f"{folder / 'own' / 'client.der'} exists: run fieldlab certs renew")
        return _print(arguments, [_own("own", certificates.create_identity(folder, agent))])
    if arguments.action == "renew":
        if arguments.finish:
            certificates.finish_renewal(folder)
            return _print(arguments, [_own("own", certificates.read_identity(folder / "own" / "client.der"))])
        renewed = certificates.renew_identity(folder, agent)
        code = _print(arguments, [_own("renewed", renewed)])
        if not arguments.json:
            print("Trust it at every server; then run fieldlab certs renew --finish, or let the old one expire.")
        return code
    if arguments.action == "trust":
        return _print(arguments, [_pin("server", certificates.trust(folder, arguments.fingerprint))])
    if arguments.action == "reject":
        gone = certificates.distrust(folder, arguments.fingerprint)
        return _print(arguments, [_pin("rejected", pin) for pin in gone])
    found = []
    for what, name in (("own", "client"), ("renewed", "next")):
        if (folder / "own" / f"{name}.der").exists():
            found.append(_own(what, certificates.read_identity(folder / "own" / f"{name}.der")))
    found += [_pin("server", pin) for _, pin in certificates.pins(folder, "servers")]
    found += [_pin("rejected", pin) for _, pin in certificates.pins(folder, "rejected")]
    expired = any(one["what"] != "rejected" and one["days"] is not None and one["days"] < 0 for one in found)
    return _print(arguments, found, ok=not expired)


def _folder(arguments: argparse.Namespace) -> tuple[Path, str]:
    """(DATA/certificates, the agent's name)."""
    if arguments.data is not None:
        return arguments.data / "certificates", getattr(arguments, "name", None) or "edge-1"
    from edge.config import load

    config = load(config_path(arguments.config))
    return config.agent.data / "certificates", getattr(arguments, "name", None) or config.agent.name


def _own(what: str, identity: "Identity") -> dict[str, Any]:
    from edge.sources.opcua.certificates import days_left

    return {
        "what": what,
        "url": "",
        "uri": identity.uri,
        "fingerprint": identity.fingerprint,
        "expires": identity.certificate.not_valid_after_utc.isoformat(),
        "days": days_left(identity.certificate),
        "file": str(identity.file),
    }


def _pin(what: str, pin: "Pin") -> dict[str, Any]:
    ends = dt.datetime.fromisoformat(pin.expires) if pin.expires else None
    return {
        "what": what,
        "url": pin.url,
        "security": f"{pin.policy}/{pin.mode}",
        "fingerprint": pin.fingerprint,
        "since": pin.since,
        "expires": pin.expires,
        "days": (ends - dt.datetime.now(dt.UTC)).days if ends is not None else None,
    }


def _print(arguments: argparse.Namespace, found: list[dict[str, Any]], *, ok: bool = True) -> int:
    if arguments.json:
        sys.stdout.write(json.dumps({"ok": ok, "certificates": found}) + "\n")
        return 0 if ok else 1
    for one in found:
        left = "expiry not known" if one["days"] is None else f"{one['days']} days left"
        print(
            f"{one['what']:9}{one['fingerprint']}  {left}  {one['url'] or one['uri']}  {one.get('file', '')}".rstrip()
        )
    if not found:
        print("no certificates")
    return 0 if ok else 1
