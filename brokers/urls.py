"""Checks the URLs of servers, and shows them without their passwords."""

import re
from urllib.parse import urlsplit, urlunsplit

from brokers.errors import InvalidSetting


def mask_url(url: str) -> str:
    """Return ``url`` without its password, for messages."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return _without_user(url)
    if parts.password is None:
        return url
    host = parts.hostname or ""
    # Without brackets an IPv6 address would run into the port.
    host = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(netloc=f"{host}{port}"))


def _without_user(url: str) -> str:
    """Return a possibly torn URL without what may be a password, which is all before the last @."""
    scheme, slashes, _ = url.partition("://")
    before, at, rest = url.rpartition("@")
    return f"{scheme if slashes else ''}{slashes}***@{rest}" if before and at else url


def check_url(name: str, url: str, schemes: set[str]) -> None:
    """Refuse a URL that a client library would not understand.

    Raises:
        InvalidSetting: The URL has a fault. The error's text shows no password.
    """
    fault = _url_fault(url, schemes)
    if fault:
        hint = "/, #, ? and @ in a password are written %2F, %23, %3F and %40" if "@" in url else ""
        raise InvalidSetting(setting=name, fault=f"{_without_user(url)!r} {fault}", hint=hint)


def _url_fault(url: str, schemes: set[str]) -> str:
    """Return what is wrong with a URL, in words; "" if nothing is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    if parts.scheme not in schemes:
        return "must start with " + " or ".join(f"{scheme}://" for scheme in sorted(schemes))
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "has no valid port, expected 1 to 65535"
    if parts.scheme == "unix":
        return "" if parts.path and not parts.hostname else "names no socket: unix:///PATH"
    if not parts.hostname:
        return f"names no host, expected {parts.scheme}://HOST:PORT"
    if parts.fragment:
        return "has a # in it"
    if parts.scheme in {"redis", "rediss"} and not re.fullmatch(r"(/\d*)?", parts.path):
        return f"has no number of a database, expected {parts.scheme}://HOST:PORT/0"
    return ""
