"""Keeps the board to those it is meant for: a check of the Host header, and strict response headers."""

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Plotly adds the styles of its maps as it loads, used or not: this is their hash in plotly.js 4.1.1. With another
# version the browser refuses them, says so in its console, and the charts are none the worse.
_MAP_STYLES = "sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o="
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{_MAP_STYLES}'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_allowed(host: str, extra: Collection[str] = ()) -> bool:
    """Whether a Host header names this machine's loopback, or one of the names in `extra`.

    A page on the internet can point its own name at 127.0.0.1 (DNS rebinding); its Host header gives it away.
    """
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost" or name in extra:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses foreign Host headers with 421, and sets the security headers on every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(h.lower() for h in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if not is_allowed(Headers(scope=scope).get("host", ""), self._hosts):
            refusal = PlainTextResponse("This board answers to loopback names only, such as localhost.\n", 421)
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers)
