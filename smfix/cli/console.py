"""Reports to stdout, everything else to stderr, and one way out of every command.

No exception leaves a command: an error is one line and its exit bit (contract, Exit codes).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from smfix.errors import SmfixError, WriteFailed
from smfix.report import jsondoc, layout, progress
from smfix.report.escape import printable
from smfix.values import Exit


def guarded(body: Callable[..., int]) -> Callable[..., int]:
    """`body`, with every exception turned into one line on stderr and an exit code."""

    @functools.wraps(body)
    def guarded(*args: Any, **options: Any) -> int:
        try:
            with pulse(), layout.columns(width()):
                return body(*args, **options)
        except SmfixError as error:
            return _ended(str(error), error.exit_bit, options)
        except KeyboardInterrupt:
            why = "interrupted; `smfix journal` lists what was changed; the next run recovers an unfinished repair"
            return _ended(why, Exit.INTERRUPTED, options)
        except Exception as error:  # noqa: BLE001 - the promise is: never a traceback
            if isinstance(error, FileNotFoundError) and _is_nowhere():
                why = "the current directory was deleted; change to another one (cd), then run smfix again"
                return _ended(why, Exit.USAGE, options)
            return _ended(unexpected(error), Exit.FAILED, options)

    return guarded


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _ended(why: str, bits: Exit, options: Mapping[str, Any]) -> int:
    """Say why a command could not do its work, in both forms; the exit code."""
    if options.get("as_json"):
        with suppress(WriteFailed):
            emit(jsondoc.dumps(jsondoc.error(why, bits)))
    say(f"smfix: {why}")
    return int(bits)


def unexpected(error: Exception) -> str:
    """The line for an error that nobody foresaw; SMFIX_DEBUG=1 prints its traceback before."""
    if os.environ.get("SMFIX_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug: please report it with "
        "what SMFIX_DEBUG=1 prints before this line"
    )


def say(line: str) -> None:
    """One line on stderr; whatever came with it from a log or an image cannot act there."""
    if _Drawn.line:
        redraw("")  # else it would be told behind the progress
    try:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens


def emit(report: str) -> None:
    """`report` on stdout. A reader that has gone away (``| head``) is no error of ours.

    Raises WriteFailed where stdout takes nothing (a full disk).
    """
    try:
        sys.stdout.write(report)
        sys.stdout.flush()
    except OSError as error:
        give_up_stdout()
        if isinstance(error, BrokenPipeError):
            return
        raise WriteFailed(
            f"cannot write the report to standard output: {error.strerror}; `smfix journal` lists what was changed"
        ) from error


def give_up_stdout() -> None:
    """What is still buffered would be tried again when Python ends, and change the exit code."""
    os.dup2(os.memfd_create("smfix-nothing"), sys.stdout.fileno())  # /dev/null need not be there


def answer(question: str, meanings: Mapping[str, str]) -> str:
    """Ask on stderr until one of the words of `meanings` is typed (or its first letter); that word.

    ``?`` and whatever is no answer explain them. Enter is ``no``, and so is ``q`` where it is none of the words.
    Empty at the end of the input.
    """
    letters = "/".join("N" if word == "no" else word[0] for word in meanings)
    while True:
        sys.stderr.write(f"{layout.INDENT}{question} [{letters}/?] ")
        sys.stderr.flush()
        _Asking.now = True
        try:
            line = sys.stdin.readline()
        finally:
            _Asking.now = False
        if not line:
            say("")
            return ""
        typed = line.strip().lower() or "no"
        if typed in ("q", "quit") and "quit" not in meanings:
            return "no"
        for word in meanings:
            if typed in (word, word[0]):
                return word
        if typed != "?":
            say(f"{layout.INDENT}{typed!r} is not an answer.")
        for word, meaning in meanings.items():
            say(f"{layout.INDENT}{word:<6}{meaning}")


class _Asking:
    """Whether an answer is waited for now."""

    now = False


def is_asking() -> bool:
    """True while a question waits for its answer."""
    return _Asking.now


class Meter:
    """How far a work is, for somebody who watches: one line on stderr, ten times a second at most."""

    def __init__(self, say: Callable[[int, int, float], str]) -> None:
        self._say, self._last = say, 0.0
        self._begun: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total`, in the unit of the work; a `total` of 0 is one that nobody knows."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        if sys.stderr.isatty() and (now - self._last >= 0.1 or done >= total > 0):
            self._last = now
            redraw("smfix: " + self._say(done, total, now - self._begun) if done < total or not total else "")


def reading_meter() -> Meter:
    """For a log: bytes and their rate."""
    return Meter(lambda done, total, seconds: progress.of_bytes("reading the log", done, total, seconds))


def counting_meter(what: str, noun: str) -> Meter:
    """For `what`, counted in `noun`s."""
    return Meter(lambda done, total, seconds: progress.of_items(what, done, total, seconds, noun))


class _Drawn:
    """The progress line as it stands: since when (monotonic seconds) nobody has changed it."""

    line = ""
    since = 0.0


def redraw(line: str) -> None:
    """The progress line, in place of the one before it."""
    if sys.stderr.isatty():
        _Drawn.line, _Drawn.since = line, time.monotonic()
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()


@contextmanager
def pulse() -> Iterator[None]:
    """While the block runs, a progress line that stands still for a second says how long it has.

    By a timer's signal and not by a thread: beside threads a log is read on one core only.
    """
    if not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _beat)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)  # looked at twice a second: never silent for two
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _beat(_signal: int, _frame: object) -> None:
    still = time.monotonic() - _Drawn.since
    if _Drawn.line and still >= 0.9:
        with suppress(OSError):  # past the buffer: that may be in use just now
            os.write(sys.stderr.fileno(), f"\r{_Drawn.line} ({still:.0f} s)\x1b[K".encode(errors="replace"))


def width() -> int:
    """Columns of the terminal, within reason; 80 where there is none, or one that does not know (a serial line)."""
    try:
        columns = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    except (OSError, ValueError):  # stdout is closed, or stands for something else
        columns = 0
    return min(max(columns or layout.WIDTH, 40), 200)
