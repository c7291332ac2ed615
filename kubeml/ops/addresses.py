"""Checks of the addresses and names that files of credentials are made of. Pure.

They end up in URLs and in files that shells read, so what cannot be one is refused.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from kubeml.errors import InvalidOption

#: RFC 1123, and the underscore that container networks have in names.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_MAX_HOST_NAME = 253

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PATH = re.compile(r"[A-Za-z0-9._~/-]*")


def url_host(host: str, *, option: str) -> str:
    """The host as it stands in a URL: an IPv6 address in brackets.

    Args:
        host: A name, an IPv4 or an IPv6 address, with or without brackets.
        option: The flag that it was given with.

    Raises:
        InvalidOption: It is none of these.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = IPv6Address(bare)
    except AddressValueError:
        if _is_name(host):
            return host
    else:
        # A zone is an interface of one machine: it says nothing to the others.
        if address.scope_id is None:
            return f"[{address}]"
    raise InvalidOption(
        option=option, got=repr(host), expected="a host name or an IP address, and no more",
        hint="no redis:// before it, and no port after it: that is an option of its own",
    )  # fmt: skip


def is_same_host(one: str, other: str) -> bool:
    """Whether two hosts are written alike, but for the case of letters and a dot at the end."""
    return one.lower().removesuffix(".") == other.lower().removesuffix(".")


def check_s3_url(url: str, *, option: str) -> None:
    """Check the URL of an S3 server.

    Raises:
        InvalidOption: It is no http(s) URL of a server, or has more in it than that.
    """
    try:
        parts = urlsplit(url)
        is_server = _is_server(parts)
    except ValueError:
        # Brackets or a port that cannot be.
        is_server = False
    # urlsplit drops blanks and line ends where they do least harm to it.
    if not is_server or re.search(r"\s", url):
        raise InvalidOption(
            option=option, got=_without_password(url), expected="http://HOST:PORT or https://HOST",
            hint="user, password, ? and # have no place in it: keys stand in the files",
        )  # fmt: skip


def check_bucket(bucket: str, *, option: str) -> None:
    """Check the name of an S3 bucket by the rules of S3 itself.

    Raises:
        InvalidOption: No server would make it.
    """
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or _is_ipv4(bucket):
        raise InvalidOption(
            option=option, got=repr(bucket),
            expected="3 to 63 lower-case letters, digits, hyphens and dots, as S3 names buckets",
        )  # fmt: skip


def _is_name(host: str) -> bool:
    if len(host) > _MAX_HOST_NAME or not _HOST_NAME.fullmatch(host):
        return False
    # Only an address ends with a number, so 300.1.1.1 is none, and no name either.
    return not host.rstrip(".").rpartition(".")[2].isdigit() or _is_ipv4(host)


def _is_ipv4(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv4Address)
    except ValueError:
        return False


def _is_server(parts: SplitResult) -> bool:
    """Whether these are scheme, host and port, with a plain path at most.

    Raises:
        ValueError: The port is none.
    """
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        return False
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path) or parts.port == 0:
        return False
    try:
        url_host(parts.hostname or "", option="")
    except InvalidOption:
        return False
    return True


def _without_password(url: str) -> str:
    """What may be shown of a URL that cannot be taken apart."""
    head, at, tail = url.rpartition("@")
    return repr(f"{head.partition('://')[0]}://…@{tail}" if at else url)
