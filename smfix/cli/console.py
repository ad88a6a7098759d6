"""Print reports to stdout and everything else to stderr, and end every command in one place.

No exception leaves a command: an error is one line and its exit bit (contract, Exit codes).
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from smfix.cli.options import expanded
from smfix.errors import SmfixError, WriteFailed
from smfix.report import jsondoc, layout, progress
from smfix.report.escape import printable
from smfix.values import Exit, Log


def guarded(body: Callable[..., int]) -> Callable[..., int]:
    """Make `body` a command: with the options of its groups and of logging, and an exit code for every exception."""
    signature, groups = expanded(body)

    @functools.wraps(body)
    def command(*arguments: Any, **options: Any) -> int:
        as_json = bool(options.get("as_json"))
        try:
            _start_log(options)
            for name, group in groups.items():
                options[name] = group(**{field: options.pop(field) for field in group._fields})
            for name in ("verbose", "debug"):
                options.pop(name, None)
            with layout.columns(width()):
                return body(*arguments, **options)
        except SmfixError as error:
            return _end(str(error), error.exit_bit, as_json=as_json)
        except KeyboardInterrupt:
            why = "interrupted; `smfix journal` lists what was changed; the next run recovers an unfinished repair"
            return _end(why, Exit.INTERRUPTED, as_json=as_json)
        except Exception as error:  # noqa: BLE001 - the promise is: never a traceback
            if isinstance(error, FileNotFoundError) and _is_nowhere():
                why = "the current directory was deleted; change to another one (cd), then run smfix again"
                return _end(why, Exit.USAGE, as_json=as_json)
            return _end(unexpected(error), Exit.FAILED, as_json=as_json)
        finally:
            Log.write = None

    command.__signature__ = signature  # type: ignore[attr-defined]
    return command


def _is_nowhere() -> bool:
    """True if the current directory was deleted."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _start_log(options: Mapping[str, Any]) -> None:
    """Log the decisions if they are asked for; a service of systemd always logs them."""
    is_service = bool(options.get("follow")) and "JOURNAL_STREAM" in os.environ
    if options.get("verbose") or options.get("debug") or is_service:
        from smfix.host import log_output

        log_output.start(say, is_debug=bool(options.get("debug")))


def _end(why: str, bits: Exit, *, as_json: bool) -> int:
    """Say why a command could not do its work, as text and as JSON; return the exit code."""
    if as_json:
        with suppress(WriteFailed):
            emit(jsondoc.dumps(jsondoc.error(why, bits)))
    say(f"smfix: {why}")
    return int(bits)


def unexpected(error: Exception) -> str:
    """Return the line for an error that is a bug; if SMFIX_DEBUG=1, print its traceback first."""
    if os.environ.get("SMFIX_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug: please report it with "
        "what SMFIX_DEBUG=1 prints before this line"
    )


def say(line: str) -> None:
    """Print one line to stderr; control characters from a log or an image are escaped."""
    redraw("")
    with suppress(OSError):  # stderr is closed, or its reader has ended
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


def emit(report: str) -> None:
    """Print `report` to stdout. A reader that has ended (``| head``) is no error.

    Raises WriteFailed if stdout takes nothing (a full disk).
    """
    redraw("")
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
    """Discard the buffered output: Python would try to write it at exit, and change the exit code."""
    os.dup2(os.memfd_create("smfix-nothing"), sys.stdout.fileno())  # /dev/null may be missing


def answer(question: str, meanings: Mapping[str, str]) -> str:
    """Ask on stderr until a word of `meanings` (or its first letter) is typed, and return that word.

    ``?`` and every other input print the meanings. Enter is ``no``, and so is ``q`` if "quit" is not offered. Returns
    "" at the end of the input.
    """
    redraw("")
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
    """Shows the progress of a long work on a terminal: one line on stderr, redrawn at most ten times a second."""

    def __init__(self, describe: Callable[[int, int, float], str]) -> None:
        self._describe, self._last = describe, 0.0
        self._begun: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total`, in the unit of the work; `total` 0: not known."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        if sys.stderr.isatty() and (now - self._last >= 0.1 or done >= total > 0):
            self._last = now
            redraw("smfix: " + self._describe(done, total, now - self._begun) if done < total or not total else "")


def reading_meter() -> Meter:
    """Make a meter for a log: bytes and their rate."""
    return Meter(lambda done, total, seconds: progress.of_bytes("reading the log", done, total, seconds))


def counting_meter(work: str, noun: str) -> Meter:
    """Make a meter for `work` on a number of things, each called `noun`."""
    return Meter(lambda done, total, seconds: progress.of_items(work, done, total, seconds, noun))


class _Progress:
    """The progress line that is on the terminal."""

    line = ""


def redraw(line: str) -> None:
    """Replace the progress line; "" removes it, which every other output does as well."""
    if (line or _Progress.line) and sys.stderr.isatty():
        _Progress.line = line
        with suppress(OSError):  # the terminal is gone
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()


def width() -> int:
    """Return the terminal's columns, 40 to 200; 80 without a terminal, or if it does not know (a serial line)."""
    try:
        columns = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    except (OSError, ValueError):  # stdout is closed, or replaced by another object
        columns = 0
    return min(max(columns or layout.WIDTH, 40), 200)
