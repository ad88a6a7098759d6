"""The entry point: ``smfix`` and ``python -m smfix``.

``--version`` is answered here, before typer is imported: half of the start-up time is typer's.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress

_YOUNG = 10_000  # values that are made before they are looked through for garbage: most are kept, and none is a circle
_INTERRUPTED, _FAILED = 32, 8  # the contract's bits; smfix.values is not imported yet


def main() -> None:
    """Run smfix with this process's arguments; ends the process with the contract's code."""
    try:
        _stand_in()
        _unpacked()
        code = _version() if sys.argv[1:] == ["--version"] else _run()
        # The work is done: what is typed while Python ends shall not change how it ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # while the commands were imported
        code = _INTERRUPTED
    _end(code)


def _end(code: int) -> None:
    """Not object by object: to free them one by one takes as long as the report does."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more; or it is closed
            stream.flush()
    os._exit(code)


def _run() -> int:
    # A sign of life on a terminal: on a busy host the import takes as long as one waits without a doubt.
    shown = sys.argv[1:2] == ["from-log"] and sys.stderr.isatty()
    if shown:
        _draw("smfix: starting")
    gc.disable()  # nothing of what is imported becomes garbage: looking for it is a twentieth of the start
    from smfix.cli.app import run

    if shown:
        _draw("")
    return run(sys.argv[1:], _collect)


def _collect() -> None:
    """Look for garbage from now on, and never among what was imported."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()


def _draw(line: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()


def _version() -> int:
    from smfix import __version__

    try:
        sys.stdout.write(f"smfix {__version__}\n")
        sys.stdout.flush()
    except OSError:
        # What is buffered would be tried again when Python ends, and be a traceback.
        os.dup2(_nothing(), 1)
        return _FAILED
    return 0


def _nothing() -> int:
    """A descriptor that is empty and takes everything, also where there is no ``/dev`` (an empty chroot)."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except OSError:
        return os.memfd_create("smfix-nothing")


def _unpacked() -> None:
    """In the self-contained smfix: be what the caller started. Behind :func:`_stand_in`, for it opens a file."""
    if getattr(sys, "frozen", False):
        from smfix.host import bundle

        bundle.begin(os.environ, sys.argv)


def _stand_in() -> None:
    """Put ``/dev/null`` where a standard stream is closed (``>&-``).

    Else the next file that is opened gets its number: an image, into which the report would be printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _nothing()  # the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    main()
