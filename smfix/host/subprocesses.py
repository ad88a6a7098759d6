"""How a program of the host is run: bounded in time, without our own libraries, in the C locale.

The only module that starts one. A program that touches storage which does not answer waits in the kernel, and no
signal ends it: it is killed, not waited for, and holds nothing of ours. While it is there, no other one of its kind
is started, so that each kind costs its time limit once.

A self-contained smfix runs with the library path of its own unpacked folder; a program of the host that inherited it
would load our libraries. Their output must be readable in every locale.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import NamedTuple

from smfix.errors import LeftBehind, Unanswered, Unreadable
from smfix.host import wait_notice
from smfix.host.bundle import LEFT_BEHIND

SBIN = ("/usr/sbin", "/sbin")
"""Where tap-ctl and LVM are, which a user's PATH often lacks."""

MAX_OUTPUT = 64 << 20
"""Bytes of output that are taken: ``lvs`` of a hundred thousand volumes has a tenth of that."""

_MAX_WORDS = 200
_TO_END = 0.5  # seconds that a program has after SIGTERM, and again after SIGKILL


class _Left(NamedTuple):
    """A program that could not be ended. `kind`: what else is not started while it is there."""

    name: str
    pid: int
    kind: str

    @property
    def words(self) -> str:
        return (
            f"{self.name} (pid {self.pid}) waits in the kernel for storage that does not answer, and no signal ends "
            "it. See whether every disk and path of this host is up, then run smfix again"
        )


_LEFT: list[_Left] = []


def program(name: str) -> str | None:
    """Return the path of a program of the host, or None if there is none."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def run(words: list[str], limit: float, kind: str | None = None) -> str:
    """Run the program ``words[0]`` (a path) and return its output.

    `limit` is in seconds; `kind` as for :func:`finished`. Raises Unreadable, in one line, if the program cannot be run,
    takes longer, or ends with an error.
    """
    name = os.path.basename(words[0])
    try:
        done = finished(words, limit, kind)
    except OSError as error:
        raise Unreadable(f"{name} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        words_of_it = said[-1].strip()[:_MAX_WORDS] if said else "it said nothing"
        raise Unreadable(f"{name} failed ({done.returncode}): {words_of_it}")
    if len(done.stdout) > MAX_OUTPUT:
        raise Unreadable(f"{name} printed {len(done.stdout)} bytes, which cannot be right")
    return done.stdout.decode("utf-8", "surrogateescape")


def finished(words: list[str], limit: float, kind: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """The program ``words[0]`` (a path), run to its end, which it must reach within `limit` seconds.

    `kind` names the programs that would wait for the same (None: only this very command); none of them is started
    while one of them waits in the kernel. Raises OSError, Unanswered after `limit` seconds, and LeftBehind if it
    cannot be ended.
    """
    name, kind = os.path.basename(words[0]), kind or "\0".join(words)
    _LEFT[:] = [left for left in _LEFT if not _is_over(left.pid)]
    stuck = next((left for left in _LEFT if left.kind == kind), None)
    if stuck is not None:
        raise LeftBehind(f"{name} was not started, because {stuck.words}")
    # No input, and not from /dev/null: an empty chroot has none. Not in our folder, which may be on dead storage.
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        cwd="/",
        start_new_session=True,
    )
    try:
        with wait_notice.program(name, process.pid, limit):
            out, err = process.communicate(b"", limit)
    except subprocess.TimeoutExpired as error:
        said = f"{name} did not end within {limit:g} seconds"
        if end(process, kind):
            raise Unanswered(said) from error
        raise LeftBehind(f"{said}: {_LEFT[-1].words}") from error
    except BaseException:
        end(process, kind)
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def end(process: subprocess.Popen[bytes], kind: str = "", *, gently: bool = True) -> bool:
    """End a program and its children, and close what it shares with us; False if it waits in the kernel.

    In that case smfix abandons it, as one of `kind`. `gently`: SIGTERM first, so that LVM finishes its writes. The
    program leads a session of its own.
    """
    try:
        for number in (signal.SIGTERM, signal.SIGKILL) if gently else (signal.SIGKILL,):
            if process.returncode is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_TO_END)
        if process.returncode is not None:
            return True
        _LEFT.append(_Left(_name(process), process.pid, kind))
        process.returncode = -signal.SIGKILL  # so that Popen does not wait for it any more
        return False
    finally:
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with suppress(OSError):
                pipe.close()


def _name(process: subprocess.Popen[bytes]) -> str:
    words = process.args
    return os.path.basename(str(words[0] if isinstance(words, list | tuple) else words))


def _is_over(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def begun(words: tuple[str, ...], document: int, output: int) -> subprocess.Popen[bytes]:
    """A program that runs beside us, in a session of its own, with the descriptor `document` as its stdin.

    Its output goes to the descriptor `output`. Raises OSError.
    """
    return subprocess.Popen(
        words,
        stdin=document,
        stdout=output,
        stderr=output,
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
