"""Who we are, and which server we trust: the files under DATA/certificates.

`own/` holds the agent's certificate and key (`client`), and while it is being renewed the new ones beside them
(`next`); `servers/` a pin for each URL: which certificate is trusted and the security that was used with it;
`rejected/` what was refused lately, for `fieldlab certs trust`.
"""

import datetime as dt
import hashlib
import os
import re
import shlex
import socket
import time
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
EXPIRY_WARN_DAYS: Final = 30
_REJECTED_KEPT: Final = 20
_CLOCK_SLACK: Final = dt.timedelta(days=1)
_TRY_RENEWED_AGAIN: Final = 3600.0  # s
_refused_renewed: dict[tuple[str, str], float] = {}  # (fingerprint, url) → when a server refused it, monotonic


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
        expires: when the certificate ends, ISO 8601; empty if it was pinned by an older version.
    """

    url: str
    fingerprint: str
    policy: str
    mode: str
    since: str
    expires: str = ""


def today() -> str:
    """Now, as a pin's `since`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class Identity(msgspec.Struct, frozen=True):
    """Our own certificate: its file, DER, private key, ApplicationUri, and whether it is the renewed one."""

    file: Path
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str
    renewed: bool = False

    def refused_by(self, url: str) -> None:
        """A server did not take it: the one before is shown to it for an hour, if this is the renewed one."""
        if self.renewed:
            _refused_renewed[self.fingerprint, url] = time.monotonic()
            log.warning(
                "opcua_renewed_certificate_refused",
                url=url,
                file=str(self.file),
                what="the old certificate is used meanwhile: trust this file at the server",
            )

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


def verify(url: str, certificate: bytes, pin: Pin | None, folder: Path, *, listed: bool, security: str) -> str:
    """The fingerprint of the server's `certificate` (DER), which must be the pinned one.

    Args:
        url: the server.
        certificate: what it shows.
        pin: what is trusted there.
        folder: DATA/certificates; what is refused is noted in it.
        listed: whether a server without a pin is refused.
        security: `Policy/Mode` that would be used.

    Raises:
        SecurityRefusedError: if it is not trusted; the text holds the command that would trust it.
    """
    fingerprint = hashlib.sha256(certificate).hexdigest()
    first = pin is None and not listed and not (folder / "rejected" / f"{fingerprint}.json").exists()
    if first or (pin is not None and pin.fingerprint == fingerprint):
        return fingerprint
    policy, _, mode = security.partition("/")
    ends = x509.load_der_x509_certificate(certificate).not_valid_after_utc.isoformat()
    reject(folder, Pin(url=url, fingerprint=fingerprint, policy=policy, mode=mode, since=today(), expires=ends))
    command = f"fieldlab certs trust --data {shlex.quote(str(folder.parent.absolute()))} {fingerprint}"
    if pin is None:
        raise SecurityRefusedError(
            f"{url} shows a certificate that is not trusted (SHA-256 {fingerprint}). Compare it with the server's own; "
            f"if it is the same, run: {command}"
        )
    raise SecurityRefusedError(
        f"{url} shows another certificate (SHA-256 {fingerprint}) than the one trusted since {pin.since} "
        f"(SHA-256 {pin.fingerprint}). Ask who runs the server whether it was renewed; if so, run: {command} "
        f"(it replaces {pin_path(folder, url)}). If not, somebody may stand in between"
    )


def reject(folder: Path, refused: Pin) -> None:
    """Note what was refused, the newest of each fingerprint, at most twenty."""
    file = folder / "rejected" / f"{refused.fingerprint}.json"
    try:
        write_private(file, msgspec.json.format(msgspec.json.encode(refused)))
        known = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in known[_REJECTED_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as e:
        log.warning("opcua_rejected_not_noted", file=str(file), error=str(e))


def pins(folder: Path, what: str) -> list[tuple[Path, Pin]]:
    """The pins in `servers` or `rejected`, with their files.

    Raises:
        SecurityRefusedError: if one cannot be read.
    """
    found = [(file, read_pin(file)) for file in sorted((folder / what).glob("*.json"))]
    return [(file, pin) for file, pin in found if pin is not None]


def trust(folder: Path, fingerprint: str) -> Pin:
    """Trust a refused certificate from now on, at the URL that showed it.

    Args:
        folder: DATA/certificates.
        fingerprint: SHA-256; its beginning will do, if it is 16 digits or more. Colons and blanks are left out.

    Raises:
        SecurityRefusedError: if no such certificate was refused.
    """
    fits, known = _matching(folder, "rejected", fingerprint)
    if len(fits) != 1:
        raise SecurityRefusedError(
            f"no refused certificate begins with {fingerprint!r} ({len(fits)} fit; 16 digits at least). Refused "
            f"lately: {known}. An agent, `check` or `discover` that meets one notes it"
        )
    file, pin = fits[0]
    trusted = msgspec.structs.replace(pin, since=today())
    write_private(pin_path(folder, pin.url), msgspec.json.format(msgspec.json.encode(trusted)))
    file.unlink(missing_ok=True)
    return trusted


def distrust(folder: Path, fingerprint: str) -> list[Pin]:
    """Trust a certificate no longer, wherever it is pinned: from the next connection on it is refused.

    Args:
        folder: DATA/certificates.
        fingerprint: as for `trust`.

    Raises:
        SecurityRefusedError: if no such certificate is trusted.
    """
    fits, known = _matching(folder, "servers", fingerprint)
    if not fits:
        raise SecurityRefusedError(
            f"no trusted certificate begins with {fingerprint!r} (16 digits at least). Trusted are: {known}"
        )
    for file, pin in fits:
        reject(folder, msgspec.structs.replace(pin, since=today()))
        file.unlink(missing_ok=True)
    return [pin for _, pin in fits]


def _matching(folder: Path, what: str, fingerprint: str) -> tuple[list[tuple[Path, Pin]], str]:
    """The pins whose fingerprint begins so, and all there are, in words."""
    wanted = re.sub(r"[^0-9a-f]", "", fingerprint.lower())
    there = pins(folder, what)
    fits = [(file, pin) for file, pin in there if len(wanted) >= 16 and pin.fingerprint.startswith(wanted)]
    return fits, ", ".join(f"{pin.fingerprint} of {pin.url}" for _, pin in there) or "none"


def days_left(certificate: x509.Certificate) -> int:
    """Whole days until a certificate ends; negative if it has."""
    return (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).days


def check_time(url: str, certificate: x509.Certificate, own: Identity) -> None:
    """See that both certificates are valid already, by the clock of this machine.

    One that has ended is used on: the server decides about ours, and of the server's the finding says that it ended.

    Raises:
        SecurityRefusedError: if not: the clock, or whoever made the certificate, is wrong.
    """
    now = dt.datetime.now(dt.UTC)
    for whose, one in (
        ("the certificate of the server", certificate),
        (f"this agent's certificate {own.file}", own.certificate),
    ):
        begins = one.not_valid_before_utc
        if now < begins - _CLOCK_SLACK:
            raise SecurityRefusedError(
                f"{url}: {whose} is valid from {begins.isoformat()} on, and the clock of this machine says "
                f"{now.isoformat(timespec='seconds')}: set the clock (NTP), or have the certificate made anew"
            )


def about_time(own: Identity) -> str:
    """What to say when a server refuses our certificate for its time."""
    begins, ends = own.certificate.not_valid_before_utc, own.certificate.not_valid_after_utc
    now = dt.datetime.now(dt.UTC)
    if now > ends:
        return f"this agent's certificate {own.file} expired on {ends.date().isoformat()}: run fieldlab certs renew"
    return (
        f"the server takes this agent's certificate {own.file} for out of date; valid from {begins.isoformat()} to "
        f"{ends.isoformat()}, and here it is {now.isoformat(timespec='seconds')}: compare the clocks of both machines"
    )


def save_pin(file: Path, new: Pin, pin: Pin | None) -> None:
    """Remember what was used, if it is new, and say so loudly."""
    if new == pin:
        return
    write_private(file, msgspec.json.format(msgspec.json.encode(new)))
    if pin is not None and msgspec.structs.replace(pin, expires=new.expires) == new:
        return
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


def load_identity(folder: Path, agent: str, url: str = "") -> Identity:
    """Our certificate in `folder`, made now if there is none; the renewed one, unless the server at `url` refused it.

    Raises:
        SecurityRefusedError: if the files cannot be read.
    """
    certificate_file = folder / "own" / "client.der"
    if (folder / "own" / "next.der").exists() and not (folder / "own" / "next.key").exists():
        finish_renewal(folder)  # it was cut short
    if not certificate_file.exists() or not certificate_file.with_suffix(".key").exists():
        create_identity(folder, agent)
    current = read_identity(certificate_file)
    if not (folder / "own" / "next.der").exists():
        return current
    renewed = msgspec.structs.replace(read_identity(folder / "own" / "next.der"), renewed=True)
    if days_left(current.certificate) < 0:
        finish_renewal(folder)
        return read_identity(certificate_file)
    refused = _refused_renewed.get((renewed.fingerprint, url))
    return current if refused is not None and time.monotonic() - refused < _TRY_RENEWED_AGAIN else renewed


def read_identity(certificate_file: Path) -> Identity:
    """The certificate in a file, with the key beside it.

    Raises:
        SecurityRefusedError: if they cannot be read.
    """
    key_file = certificate_file.with_suffix(".key")
    try:
        certificate = x509.load_der_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    except (OSError, ValueError, IndexError, x509.ExtensionNotFound) as e:
        raise SecurityRefusedError(f"{certificate_file} or {key_file} is not usable ({e}); delete both") from e
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SecurityRefusedError(f"{key_file} is not an RSA key; delete it and {certificate_file}")
    if key.public_key() != certificate.public_key():
        raise SecurityRefusedError(f"{key_file} is not the key of {certificate_file}; delete both")
    return Identity(certificate_file, certificate, key, uri)


def create_identity(folder: Path, agent: str) -> Identity:
    """Make our first certificate; one that is there is replaced."""
    file = folder / "own" / "client.der"
    _create(folder, file, file.with_suffix(".key"), agent, "")
    return read_identity(file)


def renew_identity(folder: Path, agent: str) -> Identity:
    """Make a new certificate and key with the same ApplicationUri, beside the old one.

    From now on each server is shown the new one; a server that refuses it is shown the old one, until that ends or
    `finish_renewal` is called.

    Raises:
        SecurityRefusedError: if there is none to renew, or it cannot be read.
    """
    current = read_identity(folder / "own" / "client.der")
    file = folder / "own" / "next.der"
    _create(folder, file, file.with_suffix(".key"), agent, current.uri)
    return read_identity(file)


def finish_renewal(folder: Path) -> None:
    """Use the renewed certificate alone.

    Raises:
        SecurityRefusedError: if there is none, or it cannot be read.
    """
    own = folder / "own"
    if (own / "next.key").exists() or not (own / "next.der").exists():
        read_identity(own / "next.der")
        (own / "next.key").replace(own / "client.key")
    (own / "next.der").replace(own / "client.der")


def _create(folder: Path, certificate_file: Path, key_file: Path, agent: str, uri: str) -> None:
    """A self-signed application instance certificate, OPC 10000-6, 6.2.2."""
    host = socket.gethostname() or "localhost"
    uri = uri or f"urn:{host}:fieldlab:{re.sub(r'[^A-Za-z0-9_.-]', '_', agent)}"
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
