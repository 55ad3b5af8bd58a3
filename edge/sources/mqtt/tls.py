"""TLS towards a broker: always verified, by an authority and a name, or by the very certificate that is pinned."""

import hashlib
import re
import socket
import ssl
from pathlib import Path

from edge.sources.mqtt.config import Broker, MqttConfig
from fieldlab.errors import ConfigError

_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}", re.ASCII)


class WrongCertificateError(ConnectionError):
    """The broker shows another certificate than the pinned one; the text says both, and what to do."""


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the client's certificate if there is one.

    Verified by `ca_file` or the system's authorities; with a pin and no `ca_file`, by the pin: whoever holds another
    key cannot finish the handshake with the pinned certificate, and no byte of MQTT is sent before it is compared.

    Raises:
        ConfigError: if a file is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if config.ca_file is not None:
            context.load_verify_locations(config.ca_file)
        elif pin_of(config):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # no chain to verify: `check_pin` is the verification
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{config.ca_file} cannot be used: {e}", key="ca_file") from None
    try:
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"{config.cert_file} with its key cannot be used: {e}", key="cert_file") from None
    return context


def pin_of(config: MqttConfig) -> str:
    """The fingerprint of the pinned certificate, as `fingerprint` writes it; empty if none is pinned.

    Raises:
        ConfigError: if it is neither a fingerprint nor the file of a certificate.
    """
    pinned: Path | None = config.pinned_certificate
    if pinned is None:
        return ""
    if _FINGERPRINT.fullmatch(pinned.name):
        digits = pinned.name.replace(":", "").upper()
        return ":".join(digits[i : i + 2] for i in range(0, 64, 2))
    try:
        content = pinned.read_bytes()
        der = ssl.PEM_cert_to_DER_cert(content.decode("ascii")) if b"-----BEGIN" in content else content
    except (OSError, ValueError) as e:
        text = f"{pinned} is neither a SHA-256 fingerprint (32 bytes in hexadecimal) nor a file with a certificate: {e}"
        raise ConfigError(text, key="pinned_certificate") from None
    if not der.startswith(b"\x30"):  # a certificate is an ASN.1 sequence
        raise ConfigError(f"{pinned} holds no certificate", key="pinned_certificate")
    return fingerprint(der)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` prints it."""
    return hashlib.sha256(certificate).digest().hex(":").upper()


def check_pin(pin: str, certificate: bytes | None, url: str) -> None:
    """Refuse any certificate but the pinned one.

    Raises:
        WrongCertificateError: if it is another.
    """
    found = fingerprint(certificate or b"")
    if found != pin:
        raise WrongCertificateError(
            f"{url} shows another certificate than the pinned one: its SHA-256 is {found}, pinned is {pin}; nothing "
            f'was sent. If it was renewed on purpose, write pinned_certificate = "{found}"'
        )


def shown_by(broker: Broker, name: str, timeout: float) -> str:
    """The fingerprint of the certificate that a broker shows: to be compared by a person, so nothing is verified.

    Nothing is sent beyond the handshake, no user and no password.

    Raises:
        OSError: if there is no TLS handshake with it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((broker.host, broker.port), timeout) as sock,
        context.wrap_socket(sock, server_hostname=name) as tls,
    ):
        return fingerprint(tls.getpeercert(binary_form=True) or b"")
