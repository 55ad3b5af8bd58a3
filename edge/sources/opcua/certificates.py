"""Who we are, and which server we trust: the files under DATA/certificates.

`own/` holds the agent's certificate and key; `servers/` a pin for each URL, written at first use: the server's
certificate and the security that was used with it.
"""

import datetime as dt
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fieldlab.errors import FieldlabError

log = structlog.get_logger()

VALID_YEARS: Final = 5


class SecurityRefusedError(FieldlabError):
    """We do not connect: the server offers too little, or shows another certificate than before."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What is trusted at a URL.

    Attributes:
        url: the server.
        fingerprint: SHA-256 of its certificate, hexadecimal.
        policy: the policy in use.
        mode: the mode in use.
        since: when it was first seen, ISO 8601.
    """

    url: str
    fingerprint: str
    policy: str
    mode: str
    since: str


def today() -> str:
    """Now, as a pin's `since`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class Identity(msgspec.Struct, frozen=True):
    """Our own certificate: its file, DER, private key and ApplicationUri."""

    file: Path
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def pin_path(folder: Path, url: str) -> Path:
    """Where the pin of `url` is kept."""
    name = re.sub(r"[^\w.-]+", "_", url.partition("://")[2])[:60]
    return folder / "servers" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.json"


def read_pin(file: Path) -> Pin | None:
    """The pin in `file`, None if there is none.

    Raises:
        SecurityRefusedError: if it cannot be read.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Pin)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as e:
        raise SecurityRefusedError(f"{file} holds which server is trusted and cannot be read: {e}") from e


def verify(url: str, certificate: bytes, pin: Pin | None, pin_file: Path) -> str:
    """The fingerprint of the server's `certificate` (DER), which must be the pinned one.

    Raises:
        SecurityRefusedError: if it is another one.
    """
    fingerprint = hashlib.sha256(certificate).hexdigest()
    if pin is not None and pin.fingerprint != fingerprint:
        raise SecurityRefusedError(
            f"{url} shows another certificate (SHA-256 {fingerprint}) than the one trusted since {pin.since} "
            f"(SHA-256 {pin.fingerprint}). Ask who runs the server whether it was renewed; if so, delete {pin_file} "
            "and the next connect trusts the new one. If not, somebody may stand in between"
        )
    return fingerprint


def save_pin(file: Path, new: Pin, pin: Pin | None) -> None:
    """Remember what was used, if it is new, and say so loudly."""
    if new == pin:
        return
    write_private(file, msgspec.json.format(msgspec.json.encode(new)))
    log.warning(
        "opcua_server_trusted" if pin is None else "opcua_security_changed",
        url=new.url,
        sha256=new.fingerprint,
        security=f"{new.policy}/{new.mode}",
        file=str(file),
        what="first connect: compare this fingerprint with the server's own" if pin is None else "pinned anew",
    )


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, at once or not at all."""
    _make_private(file.parent)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _make_private(folder: Path) -> None:
    """Make a folder and what is missing above it, for us alone: `check` may be the first to make the data folder."""
    for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
        missing.mkdir(exist_ok=True, mode=0o700)


def load_identity(folder: Path, agent: str) -> Identity:
    """Our certificate in `folder`, made now if there is none.

    Raises:
        SecurityRefusedError: if the files cannot be read.
    """
    certificate_file, key_file = folder / "own" / "client.der", folder / "own" / "client.key"
    if not certificate_file.exists() or not key_file.exists():
        _create(folder, certificate_file, key_file, agent)
    try:
        certificate = x509.load_der_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    except (OSError, ValueError, IndexError, x509.ExtensionNotFound) as e:
        raise SecurityRefusedError(f"{certificate_file} or {key_file} is not usable ({e}); delete both") from e
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SecurityRefusedError(f"{key_file} is not an RSA key; delete it and {certificate_file}")
    return Identity(certificate_file, certificate, key, uri)


def _create(folder: Path, certificate_file: Path, key_file: Path, agent: str) -> None:
    """A self-signed application instance certificate, OPC 10000-6, 6.2.2."""
    host = socket.gethostname() or "localhost"
    uri = f"urn:{host}:fieldlab:{re.sub(r'[^A-Za-z0-9_.-]', '_', agent)}"
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"fieldlab {agent}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Fieldlab"),
        ]
    )
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # a server whose clock is behind must accept it too
        .not_valid_after(now + dt.timedelta(days=365 * VALID_YEARS))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(host)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    _make_private(folder)
    folder.chmod(0o700)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key_file, encoded)
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.DER))
    log.warning(
        "opcua_certificate_created",
        file=str(certificate_file),
        uri=uri,
        expires=certificate.not_valid_after_utc.date().isoformat(),
        what="servers with a trust list must be told to trust this file",
    )
