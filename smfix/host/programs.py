"""How a program of the host is run: bounded in time, without our own libraries, in the C locale.

The only module that starts one. A self-contained smfix runs with the library path of its own unpacked folder;
a program of the host that inherited it would load our libraries. What they print must be readable, whatever the
locale.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from smfix.errors import Unreadable
from smfix.host.packed import LEFT_BEHIND

SBIN = ("/usr/sbin", "/sbin")
"""Where tap-ctl and LVM are, which a user's PATH often lacks."""

MAX_OUTPUT = 64 << 20
"""Bytes of output that are taken: ``lvs`` of a hundred thousand volumes has a tenth of that."""

_MAX_WORDS = 200


def program(name: str) -> str | None:
    """The path of a program of the host, or None where there is none."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def run(words: list[str], limit: float) -> str:
    """What the program ``words[0]`` (a path) prints. `limit` is in seconds.

    Raises Unreadable, in one line, where it cannot be run, takes longer, or ends with an error.
    """
    name = os.path.basename(words[0])
    try:
        done = finished(words, limit)
    except subprocess.TimeoutExpired as error:
        raise Unreadable(f"{name} did not end within {limit:g} seconds") from error
    except OSError as error:
        raise Unreadable(f"{name} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        words_of_it = said[-1].strip()[:_MAX_WORDS] if said else "it said nothing"
        raise Unreadable(f"{name} failed ({done.returncode}): {words_of_it}")
    if len(done.stdout) > MAX_OUTPUT:
        raise Unreadable(f"{name} printed {len(done.stdout)} bytes, which cannot be right")
    return done.stdout.decode("utf-8", "surrogateescape")


def finished(words: list[str], limit: float) -> subprocess.CompletedProcess[bytes]:
    """The program ``words[0]`` (a path), run to its end, which it must reach within `limit` seconds.

    Raises OSError and subprocess.TimeoutExpired, as :func:`subprocess.run` does.
    """
    # No input, and not from /dev/null: an empty chroot has none.
    return subprocess.run(words, capture_output=True, input=b"", env=clean_environment(), timeout=limit, check=False)


def begun(words: tuple[str, ...], document: int) -> subprocess.Popen[bytes]:
    """A program that runs beside us, in a session of its own, with the descriptor `document` as its stdin.

    What it prints goes where smfix's own messages go: stderr. Raises OSError.
    """
    return subprocess.Popen(
        words,
        stdin=document,
        stdout=2,
        stderr=2,
        env=clean_environment(),
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )


def clean_environment() -> dict[str, str]:
    """This process's environment for a program of the host: no ``LD_*``, no password, the C locale."""
    dropped = ("LD_", "LC_", "SMFIX_XAPI_", *LEFT_BEHIND)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"LC_ALL": "C", "LANG": "C"}
