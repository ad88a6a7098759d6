"""Plain text in columns: labelled rows, wrapped prose, whole commands. Pure, but for how wide it is.

Prose is wrapped; a path or a command never is, because it will be copied. A quote uses the whole width, prose as
much of it as is read with ease. Everything is made printable here, so no caller can forget to.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from smfix.report.escape import printable

WIDTH = 80
"""Columns of a report that goes anywhere but to a terminal."""
READABLE = 100
"""Columns of prose on the widest terminal."""
INDENT = "   "
LABEL = 9


class _Paper:
    """What is written on just now."""

    width = WIDTH


@contextmanager
def columns(width: int) -> Iterator[None]:
    """Within the block text is laid out for a terminal of `width` columns."""
    before, _Paper.width = _Paper.width, width
    try:
        yield
    finally:
        _Paper.width = before


def terminal() -> int:
    """Columns that there are: for what is no prose."""
    return _Paper.width


def prose() -> int:
    """Columns that prose takes."""
    return min(_Paper.width, READABLE)


def wrapped(text: str, indent: str = "") -> str:
    """`text` as prose; words longer than a line stay whole."""
    return _filled(printable(text), prose(), indent, indent)


def row(label: str, text: str) -> str:
    """``   label    text``, wrapped under itself."""
    return _filled(printable(text), prose(), f"{INDENT}{label:<{LABEL}}", INDENT + " " * LABEL)


def folded(head: str, text: str, width: int | None = None) -> str:
    """`head` and behind it `text`, wrapped under itself in `width` columns; `head` is printed as it is."""
    return _filled(printable(text), max(width or prose(), len(head) + 20), head, " " * len(head))


def verbatim(label: str, text: str) -> str:
    """``   label    text`` on one line whatever its length: a path or a command to copy."""
    return f"{INDENT}{label:<{LABEL}}{printable(text)}"


def clipped(label: str, text: str, rows: int) -> str:
    """``   label    text`` in `rows` lines at most (3 or more): a quote, whole in the JSON.

    It is folded at blanks, and what is longer than a line by itself behind a slash. Of a longer quote the middle is
    left out: a log line begins with who wrote it and ends with what is wrong.
    """
    pieces = _pieces(printable(text), _Paper.width - len(INDENT) - LABEL)
    if len(pieces) > rows:
        last = rows // 2
        pieces = [*pieces[: rows - last - 1], "...", *pieces[-last:]]
    return "\n".join(f"{INDENT}{label if number == 0 else '':<{LABEL}}{piece}" for number, piece in enumerate(pieces))


def _pieces(text: str, room: int) -> list[str]:
    """`text` in lines of `room` columns, each as full as whole words make it."""
    lines = [""]
    for word in _WORD.findall(text):
        if len(lines[-1]) + len(word) <= room:
            lines[-1] += word
            continue
        rest = word.lstrip()
        while len(rest) > room:
            end = rest.rfind("/", 1, room) + 1 or room
            lines.append(rest[:end])
            rest = rest[end:]
        lines.append(rest)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


_WORD = re.compile(r" *[^ ]+")


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
