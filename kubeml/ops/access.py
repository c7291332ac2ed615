"""Credentials for each role of a pool, with the least rights it needs.

``brokers/acl/users.acl`` says which keys and commands a role may use on Redis; S3 knows who may
only read. What is written: ``users.acl`` for the server (hashes alone), ``s3-identities.json`` for
a SeaweedFS server, and ``{role}.env`` for the processes of each role. A state server of its own has
``state-users.acl``: other passwords, and of the rights those that its keys need; so has the broker.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubeml.errors import Conflict, InvalidOption
from kubeml.stack.home import write_private

ROLES = ("client", "worker", "ps", "control", "flower")

#: Whose keys these are, in ``users.acl``: the state server's. All others, and all channels, are
#: the broker's.
_STATE_KEYS = ("~kml:", "~kubeml:")

#: Who may write to S3: a worker and a control worker only read there, Flower does not look.
_S3_ACTIONS = {
    "client": ("Admin", "Read", "List", "Write"),
    "ps": ("Read", "List", "Write"),
    "worker": ("Read", "List"),
    "control": ("Read", "List"),
}

#: Is there with a state server of its own alone.
_STATE_USERS = "state-users.acl"


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A Redis server as the pool's processes reach it.

    Attributes:
        host, port: Where it is; the host as in a URL, see ``kubeml.ops.addresses``.
        tls: Whether it speaks TLS.
        ca: File with the authority that vouches for its certificate, on the machines of the
            processes; empty: one that they know anyway.
    """

    host: str
    port: int
    tls: bool = False
    ca: str = ""

    def url(self, user: str, password: str) -> str:
        """How somebody reaches it."""
        query = f"?ssl_ca_certs={quote(self.ca)}" if self.ca else ""
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{user}:{password}@{self.host}:{self.port}/0{query}"


def write_access(
    folder: Path,
    *,
    broker: RedisServer,
    state: RedisServer | None = None,
    bucket: str,
    replace: bool,
    s3_url: str = "",
) -> list[Path]:
    """Make credentials for every role, and write them where only this user can read them.

    Args:
        folder: Where to.
        broker: The Redis server of the messages.
        state: That of the jobs' state, if it is another one.
        bucket: The S3 bucket.
        replace: Whether files that are there may be replaced. What an earlier set-up had and this
            one has not is deleted then: nobody may take it for a part of this one.
        s3_url: The S3 server, as the pool's processes reach it; empty: they know it otherwise.

    Returns:
        The files.

    Raises:
        Conflict: A file is there already.
        InvalidOption: The folder is none, or cannot be written to.
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
            option="--out", got=str(folder), expected="a folder that can be written to",
            hint=f"{err.filename or folder}: {err.strerror}",
        ) from err  # fmt: skip


def _write(folder: Path, texts: dict[str, str], *, replace: bool) -> list[Path]:
    """Write the files, and delete what there was beside them in an earlier set-up."""
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
    """The users of one of two servers, with the keys and channels that this one holds."""
    lines = []
    for line in text.splitlines():
        rules = line.split()
        kept = [rule for rule in rules if not _is_key(rule) or _is_state_key(rule) == is_state]
        # Who has no business with any of its keys is no user of it.
        if any(map(_is_key, kept)) or not any(map(_is_key, rules)):
            lines.append(" ".join(kept))
    return "\n".join(lines) + "\n"


def _is_key(rule: str) -> bool:
    return rule.startswith(("~", "%", "&"))


def _is_state_key(rule: str) -> bool:
    return rule.removeprefix("%R").startswith(_STATE_KEYS)


def _with_passwords(users: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """The users with a new password's hash each, and role to user and password."""
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
