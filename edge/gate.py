"""Who may ask an agent over the network, and for what. Its Unix socket is kept by the file system instead."""

import base64
import binascii
import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edge import acknowledge

_READING = frozenset({"GET", "HEAD"})
_WORDS = frozenset({acknowledge.PATH})  # a note of a person in the journal; changes no machine and no data
_OPEN = frozenset({"/healthz"})  # says nothing but that the process lives


class Gate:
    """ASGI middleware. Over the network people may look, and acknowledge findings; nothing else, token or not.

    Args:
        app: what is behind.
        token: what a request over the network must bring, as `Authorization: Bearer` or as the password of a login;
            empty for none, which a loopback address alone may have.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        refusal = None
        if scope["type"] == "http" and scope["server"] is not None and scope["server"][1] is not None:
            refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        own_page = _of_own_page(headers)  # before the name is replaced
        if self._token and scope["path"] not in _OPEN:
            if not hmac.compare_digest(_given(headers.get("authorization", "")), self._token):
                login = {"WWW-Authenticate": 'Basic realm="fieldlab", charset="UTF-8"'}
                return PlainTextResponse("needs the token of [agent] http_token_file\n", 401, headers=login)
            # Who has the token may come by any name: a page of elsewhere (DNS rebinding) has none.
            MutableHeaders(scope=scope)["host"] = "localhost"
        if scope["method"] == "POST" and scope["path"] in _WORDS and own_page:
            return None
        if scope["method"] not in _READING:
            return PlainTextResponse("only over the agent's Unix socket: see `fieldlab --help`\n", 403)
        return None


def _of_own_page(headers: Headers) -> bool:
    """Whether a POST comes from our own page, or from no page at all.

    A page of elsewhere cannot send JSON without asking first, and its browser names it.
    """
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return False
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")


def _given(authorization: str) -> bytes:
    """The token in a header; empty if there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
