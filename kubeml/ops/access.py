"""Credentials for each role of a pool, with the least rights it needs; for ``kubeml access``.

``brokers/acl/users.acl`` says which keys and commands a role may use on Redis. S3 lets some roles
read only. Three kinds of files are written: ``users.acl`` for the Redis server, with hashes alone;
``s3-identities.json`` for a SeaweedFS server; and ``{role}.env`` for the processes of each role.
If the state server is not the broker, it gets a ``state-users.acl`` with passwords of its own. Then
each of the two servers grants only the rights that its own keys need.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from kubeml.errors import Conflict, InvalidOption
from kubeml.stack.home import write_private

ROLES = ("client", "worker", "ps", "control", "flower")

#: In ``users.acl`` the keys that begin so are the state server's. All other keys, and all
#: channels, are the broker's.
_STATE_KEYS = ("~kml:", "~kubeml:")

#: Which roles may do what on S3: workers and control workers only read, Flower does not use it.
_S3_ACTIONS = {
    "client": ("Admin", "Read", "List", "Write"),
    "ps": ("Read", "List", "Write"),
    "worker": ("Read", "List"),
    "control": ("Read", "List"),
}

#: This file is written only if the state server is not the broker.
_STATE_USERS = "state-users.acl"

#: A host's name by RFC 1123, with the underscore that names in container networks have. It has at
#: most 253 characters and does not end in a number: only addresses do, so 300.1.1.1 is no name.
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(?!\.|(?:.*\.)?[0-9]+\.?$)"
    r"(?:(?:^|\.)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)+\.?"
)


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A Redis server as the pool's processes reach it.

    Attributes:
        host, port: Where it is, with the host as ``url_host`` returns it.
        tls: Whether it speaks TLS.
        ca: File with the authority that vouches for its certificate, on the machines of the
            processes; empty: an authority that they know anyway.
    """

    host: str
    port: int
    tls: bool = False
    ca: str = ""

    def url(self, user: str, password: str) -> str:
        """Return the URL by which this user reaches the server."""
        query = f"?ssl_ca_certs={quote(self.ca)}" if self.ca else ""
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{user}:{password}@{self.host}:{self.port}/0{query}"


def url_host(host: str, *, option: str) -> str:
    """Return the host as it stands in a URL: an IPv6 address in brackets.

    Args:
        host: A name, an IPv4 or an IPv6 address, the latter with or without brackets.
        option: The flag by which it was given.

    Raises:
        InvalidOption: The host is none of these.
    """
    is_bracketed = host.startswith("[") and host.endswith("]")
    address = _address(host[1:-1] if is_bracketed else host)
    # A zone names an interface of one machine: it means nothing on the others.
    if isinstance(address, IPv6Address) and address.scope_id is None:
        return f"[{address}]"
    if not is_bracketed and (isinstance(address, IPv4Address) or _HOST_NAME.fullmatch(host)):
        return host
    raise InvalidOption(
        option=option,
        got=repr(host),
        expected="a host name or an IP address, and no more",
        hint="no redis:// before it, and no port after it: that is an option of its own",
    )


def is_same_host(one: str, other: str) -> bool:
    """Return whether two hosts are written alike, but for the case of letters and a final dot."""
    return one.lower().removesuffix(".") == other.lower().removesuffix(".")


def check_s3_url(url: str, *, option: str) -> None:
    """Check the URL of an S3 server.

    Raises:
        InvalidOption: The URL is not http(s), names no server, or has more than a plain path.
    """
    try:
        parts = urlsplit(url)
        url_host(parts.hostname or "", option=option)
        is_server = (
            parts.scheme in {"http", "https"}
            and parts.port != 0
            and not ("@" in parts.netloc or parts.query or parts.fragment)
            and re.fullmatch(r"[A-Za-z0-9._~/-]*", parts.path)
            # urlsplit silently drops some blanks and line ends.
            and not re.search(r"\s", url)
        )
    except (ValueError, InvalidOption):
        # The brackets or the port are impossible, or there is no host.
        is_server = False
    if not is_server:
        head, at, tail = url.rpartition("@")
        shown = f"{head.partition('://')[0]}://…@{tail}" if at else url  # without a password
        raise InvalidOption(
            option=option,
            got=repr(shown),
            expected="http://HOST:PORT or https://HOST",
            hint="user, password, ? and # have no place in it: keys stand in the files",
        )


def check_bucket(bucket: str, *, option: str) -> None:
    """Check the name of an S3 bucket by the rules of S3 itself.

    Raises:
        InvalidOption: No S3 server would create a bucket of this name.
    """
    is_name = re.fullmatch(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket)
    if not is_name or _address(bucket) is not None:
        raise InvalidOption(
            option=option,
            got=repr(bucket),
            expected="3 to 63 lower-case letters, digits, hyphens and dots, as S3 names buckets",
        )


def write_access(
    folder: Path,
    *,
    broker: RedisServer,
    state: RedisServer | None = None,
    bucket: str,
    replace: bool,
    s3_url: str = "",
) -> list[Path]:
    """Make credentials for every role, and write them into files that only this user can read.

    Args:
        folder: The folder for the files.
        broker: The Redis server of the messages.
        state: The Redis server of the jobs' state, if it is another one.
        bucket: The S3 bucket.
        replace: Whether existing files may be replaced. A file of an earlier set-up that has no
            place in this one is then deleted, lest anybody take it for a part of this one.
        s3_url: The S3 server, as the pool's processes reach it; empty: they know it otherwise.

    Returns:
        The files that were written.

    Raises:
        Conflict: A file exists already.
        InvalidOption: The folder is not a folder, or cannot be written to.
    """
    template = (resources.files("brokers") / "acl" / "users.acl").read_text("utf-8")
    users = template if state is None else _for_server(template, is_state=False)
    keys = {role: (secrets.token_hex(10), secrets.token_hex(20)) for role in _S3_ACTIONS}
    texts = {"s3-identities.json": json.dumps(_identities(keys, bucket), indent=2) + "\n"}
    texts["users.acl"], passwords = _with_passwords(users)
    urls = {role: {"KUBEML_BROKER_URL": broker.url(*who)} for role, who in passwords.items()}
    if state is not None:
        text, passwords = _with_passwords(_for_server(template, is_state=True))
        texts[_STATE_USERS] = text
        for role, who in passwords.items():
            urls[role]["KUBEML_STATE_URL"] = state.url(*who)
    for role in ROLES:
        lines = [f"{name}={url}" for name, url in urls[role].items()]
        if role in keys:
            lines += [
                f"KUBEML_S3_BUCKET={bucket}",
                *([f"KUBEML_S3_ENDPOINT_URL={s3_url}"] if s3_url else []),
                f"AWS_ACCESS_KEY_ID={keys[role][0]}",
                f"AWS_SECRET_ACCESS_KEY={keys[role][1]}",
            ]
        if role == "flower":
            lines.append(f"KUBEML_FLOWER_AUTH=kubeml:{secrets.token_urlsafe(24)}")
        texts[f"{role}.env"] = "\n".join(lines) + "\n"
    try:
        return _write(folder, texts, replace=replace)
    except OSError as err:
        raise InvalidOption(
            option="--out",
            got=str(folder),
            expected="a folder that can be written to",
            hint=f"{err.filename or folder}: {err.strerror}",
        ) from err


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _write(folder: Path, texts: dict[str, str], *, replace: bool) -> list[Path]:
    """Write the files, and delete a file that only the earlier set-up had."""
    files = [folder / name for name in texts]
    there = [file for file in {*files, folder / _STATE_USERS} if file.exists()]
    for file in sorted(there):
        if file.is_dir():
            raise Conflict(what=f"{file} is a folder", hint="move it, or choose another --out")
        if not replace:
            raise Conflict(what=f"{file} is there already", hint="--force replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_private(folder / name, text)
    for file in there:
        if file not in files:
            file.unlink()
    return files


def _for_server(text: str, *, is_state: bool) -> str:
    """Return the users of one of the two servers, with the keys and channels that it holds."""
    lines = []
    for line in text.splitlines():
        rules = line.split()
        kept = [rule for rule in rules if not _is_key(rule) or _is_state_key(rule) == is_state]
        # A role that uses none of a server's keys is no user of that server.
        if any(map(_is_key, kept)) or not any(map(_is_key, rules)):
            lines.append(" ".join(kept))
    return "\n".join(lines) + "\n"


def _is_key(rule: str) -> bool:
    return rule.startswith(("~", "%", "&"))


def _is_state_key(rule: str) -> bool:
    return rule.removeprefix("%R").startswith(_STATE_KEYS)


def _with_passwords(users: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the users, each with the hash of a new password; and each role's user and password."""
    made = {}
    for role in ROLES:
        if f"@{role}@" in users:
            password = secrets.token_urlsafe(24)
            made[role] = (f"kubeml-{role}", password)
            digest = hashlib.sha256(password.encode()).hexdigest()
            users = users.replace(f"@{role}@", digest)
    return users, made


def _identities(keys: dict[str, tuple[str, str]], bucket: str) -> dict[str, Any]:
    return {
        "identities": [
            {
                "name": f"kubeml-{role}",
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": [f"{action}:{bucket}" for action in _S3_ACTIONS[role]],
            }
            for role, (key, secret) in keys.items()
        ]
    }
