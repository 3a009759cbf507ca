"""What keeps other people's web pages out."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from server.doors import is_loopback
from server.errors import PermissionDeniedError

_POLICY = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OTHERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

SECURITY_HEADERS = ((b"content-security-policy", _POLICY), *_OTHERS)
"""Sent with every answer. There is no Access-Control-Allow-Origin: no other site may read anything."""

PAGE_HEADERS = (
    (
        b"content-security-policy",
        _POLICY + b"; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'",
    ),
    *_OTHERS,
)
"""The same of the console, which is made of this server's files and nothing else: not even a line of its own page
is run as a script.
"""


def require_own_page(headers: Mapping[str, str]) -> None:
    """Raises PermissionDeniedError for a request that another site's page has made in somebody's browser.

    Browsers say so by themselves; who is not a browser says neither of the two.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        own = site in {"same-origin", "none"}
    else:
        origin = headers.get("origin")
        own = origin is None or urlsplit(origin).netloc == headers.get("host", "")
    if not own:
        raise PermissionDeniedError(
            "CROSS_SITE",
            "no other site's page may call this server from a browser",
            {"origin": headers.get("origin", "")},
        )


def require_loopback_name(headers: Mapping[str, str]) -> None:
    """Raises PermissionDeniedError for another name than this machine's own.

    Where no key is asked for, a page whose name is made to resolve to 127.0.0.1 (DNS rebinding) would otherwise be
    let in as this server's own.
    """
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        raise PermissionDeniedError(
            "HOST_NOT_LOOPBACK",
            "as long as there are no keys, address this server as localhost or 127.0.0.1",
            {"host": host[:255]},
        )
