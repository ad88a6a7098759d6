"""Find out how to reach the pool's XAPI. Apart from the client, which most runs need not import."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from smfix.errors import Unreadable, UsageError

SOCKET = "/var/lib/xcp/xapi"
_NEEDED = ("url", "user", "password")


class Login(NamedTuple):
    """How to reach a pool: its local `socket`, or `url` (https) with `user` and `password`.

    `ca`: a PEM file to verify the certificate with, None for the system's.
    """

    socket: str | None = None
    url: str = ""
    user: str = "root"
    password: str = ""
    ca: str | None = None

    def __repr__(self) -> str:
        """Show all but the password."""
        return f"Login(socket={self.socket!r}, url={self.url!r}, user={self.user!r}, ca={self.ca!r})"

    @property
    def where(self) -> str:
        """The address, for messages."""
        return self.socket or self.url


def login(file: str | None, environment: Mapping[str, str], *, socket: str = SOCKET) -> Login | None:
    """Return how to reach the pool: `file`, else ``SMFIX_XAPI_URL`` and its kin, else this host's socket, else None.

    `file` is TOML (``url``, ``user``, ``password``, optional ``ca``) that only its owner may read. Raises
    UsageError for a file with other contents, Unreadable for one that cannot be read.
    """
    if file is not None:
        return _remote(_read_login(file), file)
    if "SMFIX_XAPI_URL" in environment:
        names = {name: f"SMFIX_XAPI_{name.upper()}" for name in (*_NEEDED, "ca")}
        given = {name: environment[variable] for name, variable in names.items() if variable in environment}
        return _remote(given, "the environment (SMFIX_XAPI_*)")
    return Login(socket=socket) if os.path.exists(socket) else None


def _read_login(file: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as lines:
            about = os.fstat(lines.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077:
                raise UsageError(f"{file} holds a password: it must be a file of mode 0600 (chmod 600 {file})")
            return tomllib.loads(lines.read(1 << 16).decode())
    except OSError as error:
        raise Unreadable(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not TOML: {error}") from error


def _remote(given: Mapping[str, Any], source: str) -> Login:
    from urllib.parse import urlsplit

    missing = [name for name in _NEEDED if not given.get(name)]
    unknown = sorted(set(given) - {*_NEEDED, "ca"})
    if missing or unknown or not all(isinstance(value, str) for value in given.values()):
        what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown) or 'a value that is not text'}"
        raise UsageError(f"{source} {what}; it takes url, user, password and ca")
    try:
        parts = urlsplit(given["url"])
        is_good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
        is_good = is_good and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(f"{source}: the url of a pool is https://HOST, without a user in it")
    return Login(None, f"https://{parts.netloc}", given["user"], given["password"], given.get("ca"))
