"""Makes the secrets of an installation: passwords, tokens, and the certificates of its broker.

    python -m deploy.secrets FOLDER [--name HOST]... [--machine SITE/AREA/LINE/MACHINE]...

Below FOLDER each service has a folder of its own, readable for its user alone, so that none sees another's secrets.
What is there already stays: run it again to add a machine, or after one file was removed to have that one renewed.
Nothing secret is printed; `FOLDER/machines/NAME` holds what a machine's engineer must type in.
"""

import argparse
import base64
import contextlib
import datetime as dt
import hashlib
import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 825  # of the broker's certificate: the longest that common TLS libraries take
CA_DAYS = 3650
RENEW_DAYS = 60  # a certificate with less left is made anew
ITERATIONS = 101  # of PBKDF2, as mosquitto_passwd has it; passwords here have 192 random bits
_MACHINE = re.compile(r"[^/+#:\s\x00-\x1f]+(/[^/+#:\s\x00-\x1f]+){3}")


class Owner(NamedTuple):
    """The user and group number that a service has in its container."""

    service: str
    number: int


OWNERS = (
    Owner("mosquitto", 1883),
    Owner("influxdb", 1000),
    Owner("grafana", 472),
    Owner("agent", 8321),
    Owner("simulators", 8321),
)


class Folder:
    """One service's secrets.

    Args:
        path: where; it is made, with mode 0700.
        number: who owns it; None leaves it to whoever runs this.
    """

    def __init__(self, path: Path, number: int | None) -> None:
        self.path, self._number = path, number
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        self._own(path)

    def _own(self, path: Path) -> None:
        if self._number is not None:
            os.chown(path, self._number, self._number)

    def write(self, name: str, content: bytes) -> None:
        """Write a file as a whole or not at all, with mode 0600."""
        target, new = self.path / name, self.path / f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        self._own(new)
        new.replace(target)

    def once(self, name: str, make: Callable[[], str]) -> str:
        """The text of a file, made if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).read_text("utf-8").strip()
        text = make()
        self.write(name, f"{text}\n".encode())
        return text


def password() -> str:
    """192 random bits in letters that no shell, URL or file format takes for something else."""
    return secrets.token_urlsafe(24)


def mosquitto_hash(word: str) -> str:
    """A password as `mosquitto_passwd` writes it: PBKDF2 with HMAC-SHA512, kind 7."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def make_authority(ca: Folder) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority of this installation: its key never leaves `ca`."""
    crt, key = ca.path / "ca.crt", ca.path / "ca.key"
    if crt.exists() and key.exists():
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(crt.read_bytes()), private
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Fieldlab authority {secrets.token_hex(4)}")])
    certificate = (
        _certificate(name, name, private.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    ca.write("ca.key", _pem(private))
    ca.write("ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, private


def make_server(folder: Folder, names: Sequence[str], ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey) -> bool:
    """The broker's certificate, for all its names; anew if a name is missing or it ends soon. Whether it was made."""
    path = folder.path / "server.crt"
    if path.exists() and (folder.path / "server.key").exists() and _serves(path.read_bytes(), names, ca):
        return False
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]), ca.subject, private.public_key(), DAYS
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    folder.write("server.key", _pem(private))
    folder.write("server.crt", certificate.public_bytes(serialization.Encoding.PEM))
    return True


def make(root: Path, names: Sequence[str], machines: Sequence[str], *, own: bool) -> list[str]:
    """Make what is missing below `root`.

    Args:
        root: the folder.
        names: what the broker is called by those who connect to it: host names or addresses.
        machines: paths of machines that publish to the broker, each with a user of that name.
        own: whether each folder is given to its service's user, which needs root.

    Returns:
        What was done, in words.

    Raises:
        ValueError: if a machine's path has not four parts, or holds what a topic or a password file cannot.
    """
    for machine in machines:
        if not _MACHINE.fullmatch(machine):
            msg = f"{machine!r} is no machine: write site/area/line/machine, without blanks and without + # :"
            raise ValueError(msg)
    folders = {o.service: Folder(root / o.service, o.number if own else None) for o in OWNERS}
    ca, engineer = Folder(root / "ca", None), Folder(root / "machines", None)
    before = {path for path in root.rglob("*") if path.is_file()}
    certificate, key = make_authority(ca)
    authority = certificate.public_bytes(serialization.Encoding.PEM)
    done = [f"new certificate of the broker, for {', '.join(names)}"] * make_server(
        folders["mosquitto"], names, certificate, key
    )
    for service in ("mosquitto", "agent", "simulators"):
        folders[service].write("ca.crt", authority)
    engineer.write("ca.crt", authority)

    users = {
        "agent": folders["agent"].once("mqtt-password", password),
        "simulators": folders["simulators"].once("mqtt-password", password),
        "health": folders["mosquitto"].once("health-password", password),
    }
    known = [p.name.replace("__", "/") for p in engineer.path.iterdir() if p.name.count("__") == 3]
    users |= {m: engineer.once(m.replace("/", "__"), password) for m in dict.fromkeys([*known, *machines])}
    _write_users(folders["mosquitto"], users)
    # The options of the broker's own health check; mosquitto_sub takes them from a file of its name.
    options = f"-h localhost\n-p 8883\n--cafile /run/secrets/ca.crt\n-u health\n-P {users['health']}\n"
    folders["mosquitto"].write("mosquitto_sub", options.encode())

    folders["influxdb"].once("admin-password", password)
    folders["influxdb"].once("admin-token", password)
    writer = folders["agent"].once("influx-password", password)
    reader = folders["influxdb"].once("grafana-password", password)
    folders["influxdb"].write("agent-password", f"{writer}\n".encode())
    folders["grafana"].write("influx-read-token", f"grafana:{reader}".encode())
    folders["grafana"].once("admin-password", password)
    folders["agent"].once("http-token", password)
    made = {path for path in root.rglob("*") if path.is_file()} - before
    return done + [f"made {path.relative_to(root)}" for path in sorted(made)]


def _write_users(folder: Folder, users: dict[str, str]) -> None:
    """The broker's password file; a user whose password is the same keeps the line, so that nothing changes."""
    path = folder.path / "passwords"
    lines = dict(line.rsplit(":", 1) for line in path.read_text("utf-8").splitlines()) if path.exists() else {}
    kept = {
        user: lines[user] if _matches(lines.get(user, ""), word) else mosquitto_hash(word)
        for user, word in users.items()
    }
    if kept != lines:
        folder.write("passwords", "".join(f"{user}:{line}\n" for user, line in kept.items()).encode())


def _matches(line: str, word: str) -> bool:
    try:
        _, kind, iterations, salt, digest = line.split("$")
        found = hashlib.pbkdf2_hmac("sha512", word.encode(), base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    return kind == "7" and secrets.compare_digest(found, base64.b64decode(digest))


def _serves(pem: bytes, names: Sequence[str], ca: x509.Certificate) -> bool:
    certificate = x509.load_pem_x509_certificate(pem)
    held = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    ours = certificate.issuer == ca.subject
    return ours and {_general(n) for n in names} <= held and left > dt.timedelta(days=RENEW_DAYS)


def _general(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # clocks of machines differ
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 if the usage is wrong."""
    assert __doc__
    parser = argparse.ArgumentParser("deploy.secrets", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--name", action="append", default=[], help="a name or address of the broker, beside mosquitto and localhost"
    )
    parser.add_argument(
        "--machine", action="append", default=[], help="site/area/line/machine that publishes to the broker"
    )
    parser.add_argument("--own", action="store_true", help="give each folder to its service's user number (needs root)")
    args = parser.parse_args(arguments)
    names = list(dict.fromkeys(["mosquitto", "localhost", "127.0.0.1", *args.name]))
    try:
        done = make(args.folder, names, args.machine, own=args.own)
    except (ValueError, OSError) as e:
        sys.stderr.write(f"deploy.secrets: {e}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in done) or "nothing to do\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
