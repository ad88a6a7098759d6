"""Plain text in 80 columns: labelled rows, wrapped prose, whole commands. Pure.

Prose is wrapped; a path or a command never is, because it will be copied. Everything is made
printable here, so no caller can forget to.
"""

from __future__ import annotations

import textwrap
from datetime import datetime

from smfix.report.escape import printable

WIDTH = 80
INDENT = "   "
LABEL = 9


def wrapped(text: str, indent: str = "") -> str:
    """`text` as prose in 80 columns; words longer than a line stay whole."""
    return _filled(printable(text), WIDTH, indent, indent)


def row(label: str, text: str) -> str:
    """``   label    text``, wrapped under itself."""
    return _filled(printable(text), WIDTH, f"{INDENT}{label:<{LABEL}}", INDENT + " " * LABEL)


def folded(head: str, text: str, width: int = WIDTH) -> str:
    """`head` and behind it `text`, wrapped under itself in `width` columns; `head` is printed as it is."""
    return _filled(printable(text), max(width, len(head) + 20), head, " " * len(head))


def verbatim(label: str, text: str) -> str:
    """``   label    text`` on one line whatever its length: a path or a command to copy."""
    return f"{INDENT}{label:<{LABEL}}{printable(text)}"


def clipped(label: str, text: str, rows: int = 1) -> str:
    """``   label    text`` folded at blanks and cut after `rows` lines: a quote, whole in the JSON."""
    room = WIDTH - len(INDENT) - LABEL
    pieces = textwrap.wrap(printable(text), room, break_on_hyphens=False) or [""]
    if len(pieces) > rows:
        pieces[rows - 1 :] = [pieces[rows - 1][: room - 3] + "..."]
    return "\n".join(f"{INDENT}{label if number == 0 else '':<{LABEL}}{piece}" for number, piece in enumerate(pieces))


def moment(time: datetime | None) -> str:
    """A time for people, offset included; with microseconds where the log has them."""
    return "unknown" if time is None else time.isoformat(sep=" ")


def span(first: datetime | None, last: datetime | None) -> str:
    """Two times as ``first to last``: one where they are equal, the day once where it is one day."""
    if first is None or last is None or first == last:
        return moment(first if last is None else last)
    if first.date() == last.date() and first.utcoffset() == last.utcoffset():
        return f"{first.replace(tzinfo=None).isoformat(sep=' ')} to {last.timetz().isoformat()}"
    return f"{moment(first)} to {moment(last)}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 disk``, ``2 disks``, ``1,024 bytes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _filled(text: str, width: int, first: str, others: str) -> str:
    """`text` in lines of `width` columns, behind `first` and then `others`."""
    if text and text == text.strip() and len(first) + len(text) <= width:
        return first + text  # most is one line: whoever wraps it takes fifty times as long
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
