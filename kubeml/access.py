"""Credentials for each role of a pool, with the least rights it needs.

``brokers/acl/users.acl`` says which keys and commands a role may use on Redis; S3 knows who may
only read. What is written: ``users.acl`` for the server (hashes alone), ``s3-identities.json`` for
a SeaweedFS server, and ``{role}.env`` for the processes of each role.
"""

import hashlib
import json
import secrets
from importlib import resources
from pathlib import Path
from typing import Any

from kubeml.errors import Conflict
from kubeml.servers import write_private

ROLES = ("client", "worker", "ps", "control", "flower")

#: Who may write to S3: a worker and a control worker only read there, Flower does not look.
_S3_ACTIONS = {
    "client": ("Admin", "Read", "List", "Write"),
    "ps": ("Read", "List", "Write"),
    "worker": ("Read", "List"),
    "control": ("Read", "List"),
}


def write_access(
    folder: Path,
    *,
    host: str,
    port: int,
    tls: bool,
    bucket: str,
    replace: bool,
    s3_url: str = "",
) -> list[Path]:
    """Make credentials for every role, and write them where only this user can read them.

    Args:
        folder: Where to.
        host: The Redis server, as the pool's processes reach it.
        port: Its port.
        tls: Whether it speaks TLS.
        bucket: The S3 bucket.
        replace: Whether files that are there may be replaced.
        s3_url: The S3 server, as the pool's processes reach it; empty: they know it otherwise.

    Returns:
        The files.

    Raises:
        Conflict: A file is there already.
    """
    passwords = {role: secrets.token_urlsafe(24) for role in ROLES}
    keys = {role: (secrets.token_hex(10), secrets.token_hex(20)) for role in _S3_ACTIONS}
    scheme = "rediss" if tls else "redis"
    texts = {
        "users.acl": _users(passwords),
        "s3-identities.json": json.dumps(_identities(keys, bucket), indent=2) + "\n",
    }
    for role in ROLES:
        url = f"{scheme}://kubeml-{role}:{passwords[role]}@{host}:{port}/0"
        lines = [f"KUBEML_BROKER_URL={url}"]
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
    files = [folder / name for name in texts]
    there = [file for file in files if file.exists()]
    if there and not replace:
        raise Conflict(what=f"{there[0]} is there already", hint="--force replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_private(folder / name, text)
    return files


def _users(passwords: dict[str, str]) -> str:
    text = (resources.files("brokers") / "acl" / "users.acl").read_text("utf-8")
    for role, password in passwords.items():
        text = text.replace(f"@{role}@", hashlib.sha256(password.encode()).hexdigest())
    return text


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
