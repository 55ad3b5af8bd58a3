"""Which security a connection uses: the best offered, never silently less than before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from asyncua import ua
from asyncua.crypto import security_policies as policies
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from edge.sources.opcua.certificates import Pin, SecurityRefusedError
from edge.sources.opcua.config import OpcuaConfig
from fieldlab.errors import ConfigError

_NONE_URI: Final = policies.SecurityPolicyNone.URI
# Weakest first: Aes128 and Basic256Sha256 pad with SHA-1, of which only the second has 256-bit keys.
POLICIES: Final[dict[str, type[policies.SecurityPolicy]]] = {
    "Aes128_Sha256_RsaOaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "Basic256Sha256": policies.SecurityPolicyBasic256Sha256,
    "Aes256_Sha256_RsaPss": policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES: Final = {"Sign": ua.MessageSecurityMode.Sign, "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt}


class Choice(msgspec.Struct, frozen=True):
    """A security policy and a message security mode; both empty for none."""

    policy: str = ""
    mode: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """How strong it is: encryption first, then the policy."""
        return (list(_MODES).index(self.mode), list(POLICIES).index(self.policy)) if self.policy else (-1, -1)

    @property
    def text(self) -> str:
        """`Policy/Mode`, or `none`."""
        return f"{self.policy}/{self.mode}" if self.policy else "none"


def parse_choice(text: str) -> Choice | None:
    """Read `security`: None means the best offered.

    Raises:
        ConfigError: if it is not understood.
    """
    if text == "best":
        return None
    if text == "none":
        return Choice()
    policy, _, mode = text.partition("/")
    if policy not in POLICIES or mode not in _MODES:
        raise ConfigError(
            f'{text!r} must be "best", "none", or one of {", ".join(POLICIES)} followed by /Sign or /SignAndEncrypt',
            key="security",
        )
    return Choice(policy, mode)


def offers(endpoints: Sequence[ua.EndpointDescription]) -> dict[Choice, ua.EndpointDescription]:
    """What a server offers over opc.tcp that we can use, the strongest first."""
    uris = {policy.URI: name for name, policy in POLICIES.items()}
    modes = {mode: name for name, mode in _MODES.items()}
    found = {}
    for endpoint in endpoints:
        if not (endpoint.EndpointUrl or "").startswith("opc.tcp"):
            continue
        if endpoint.SecurityPolicyUri == _NONE_URI:
            found[Choice()] = endpoint
        elif endpoint.SecurityPolicyUri in uris and endpoint.SecurityMode in modes and endpoint.ServerCertificate:
            found[Choice(uris[endpoint.SecurityPolicyUri], modes[endpoint.SecurityMode])] = endpoint
    return dict(sorted(found.items(), key=lambda item: item[0].rank, reverse=True))


def choose(
    url: str, wanted: Choice | None, offered: dict[Choice, ua.EndpointDescription], pin: Pin | None, pin_file: Path
) -> Choice:
    """What to use, `wanted` being None for the best.

    Raises:
        SecurityRefusedError: if it is not offered, or is less than what was used before.
    """
    names = ", ".join(c.text for c in offered) or "nothing that we know"
    if wanted is not None:
        if wanted not in offered:
            raise SecurityRefusedError(f"{url} does not offer {wanted.text}; it offers {names}")
        return wanted
    best = next(iter(offered), Choice())
    if not best.policy:
        raise SecurityRefusedError(
            f'{url} offers no security ({names}): switch it on at the server, or write security = "none" to accept '
            "that anybody on the network can read and change the values"
        )
    if pin is not None and best.rank < Choice(pin.policy, pin.mode).rank:
        raise SecurityRefusedError(
            f"{url} offered {pin.policy}/{pin.mode} before and now at most {best.text}: less is never used silently. "
            f'If that is meant, write security = "{best.text}", or delete {pin_file}'
        )
    return best


def read_user(config: OpcuaConfig) -> tuple[x509.Certificate, PrivateKeyTypes] | None:
    """The user's certificate and its private key; None if the user is no certificate.

    Raises:
        ConfigError: if a file cannot be read, others may read the key, or the two do not belong together.
    """
    if config.user_cert_file is None or config.user_key_file is None:
        return None
    key = "user_cert_file"
    try:
        content = config.user_cert_file.read_bytes()
        pem = content.lstrip().startswith(b"-----")
        certificate = (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(content)
        key = "user_key_file"
        if config.user_key_file.stat().st_mode & 0o077:
            raise ConfigError(f"{config.user_key_file} can be read by others; run chmod 600 on it", key=key)
        secret = config.user_key_file.read_bytes()
        pem = secret.lstrip().startswith(b"-----")
        private = (load_pem_private_key if pem else load_der_private_key)(secret, None)
    except (OSError, ValueError, TypeError) as e:
        raise ConfigError(f"{getattr(config, key)} cannot be read: {e}", key=key) from None
    if private.public_key() != certificate.public_key():
        raise ConfigError(f"is not the key of {config.user_cert_file}", key=key)
    return certificate, private
