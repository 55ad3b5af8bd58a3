"""TLS towards a broker: always verified, with a client certificate where one is configured."""

import ssl

from edge.sources.mqtt.config import MqttConfig
from fieldlab.errors import ConfigError


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """Verified TLS 1.2 or newer, with the client's certificate if there is one.

    Raises:
        ConfigError: if a file is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if config.ca_file is not None:
            context.load_verify_locations(config.ca_file)
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
