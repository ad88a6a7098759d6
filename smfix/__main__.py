"""The entry point: ``smfix`` and ``python -m smfix``.

``--version`` is answered here, before typer is imported: half of the start-up time is typer's.
"""

from __future__ import annotations

import os
import signal
import sys

_INTERRUPTED, _FAILED = 32, 8  # the contract's bits; smfix.model is not imported yet


def main() -> None:
    """Run smfix with this process's arguments; leaves by SystemExit with the contract's code."""
    try:
        _stand_in()
        code = _version() if sys.argv[1:] == ["--version"] else _run()
        # The work is done: what is typed while Python ends shall not change how it ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # while the commands were imported
        code = _INTERRUPTED
    raise SystemExit(code)


def _run() -> int:
    from smfix.cli import run

    return run(sys.argv[1:])


def _version() -> int:
    from smfix import __version__

    try:
        sys.stdout.write(f"smfix {__version__}\n")
        sys.stdout.flush()
    except OSError:
        # What is buffered would be tried again when Python ends, and be a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _FAILED
    return 0


def _stand_in() -> None:
    """Put ``/dev/null`` where a standard stream is closed (``>&-``).

    Else the next file that is opened gets its number: an image, into which the report would be printed.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    sys.stdin = sys.stdin or os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    main()
