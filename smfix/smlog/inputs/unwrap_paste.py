"""Pasted logs made readable again: wrapped lines joined, lost line ends found, escapes undone.

Pure. People send logs as a mail, a forum or a terminal changed them. A paste is small, so it is looked
at as a whole, before it is cut into blocks; a text that is no paste comes back as None, untouched. Joined
text keeps the number of its first line. Nothing is guessed: a line is joined only if the log
itself shows that it was cut.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smfix.smlog.parse.prefixes import is_of_storage, read_prefix, unescape
from smfix.smlog.parse.quoted_text import is_open
from smfix.smlog.parse.timestamps import MONTHS
from smfix.smlog.patterns import pattern

LARGEST = 1 << 20  # bytes; a larger text is a log
_WIDTHS = frozenset({80, 100, 120, 132})  # terminals: one line cut there is enough of a sign
_NARROWEST = 60
_WORD = pattern(r"[A-Za-z]")  # a text without one is a console's time, or a quote's sign
_LONGEST_OPEN = 16 << 10  # characters of a line that a user can have written a prefix into
_SHORTEST_CUT = 36  # characters of a line that a mail program would have broken
_WIDEST_MAIL = 100  # characters; a log whose lines are longer was not broken by a mail program
_BROKEN = 2  # lines that go on in the next, to believe that it was

_INSIDE = pattern(
    rf"(?<=\s)(?=(?:{'|'.join(MONTHS)}) {{1,2}}[0-9]{{1,2}} [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}} "
    r"[^\s:]{1,255} [A-Za-z]{1,20}: \["
    r"|(?:\[[0-9]{1,7}\]|<[0-9]{1,7}>) [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})"
)

_GREPPED = pattern(
    r"^(?:(?:[^\s:]{0,200}SMlog[\w.-]{0,40}[:-])?[0-9]{1,9}[:-](?![0-9]{2}-[0-9]{2}[T ]|[0-9]{2}:)"
    r"|[^\s:]{0,200}SMlog[\w.-]{0,40}:|--$)"
)
_TAG = pattern(
    r"</?(?:p|br|div|span|code|pre|li|ul|ol|td|tr|table|tbody|b|i|em|strong|blockquote|font|a)(?:\s[^<>\n]{0,300})?/?>",
    re.IGNORECASE,
)
_BREAK = pattern(r"<br\s?/?>|</(?:p|div|li|tr)>", re.IGNORECASE)
_ENOUGH = 3  # lines that grep numbered, to believe that it did


class Piece(NamedTuple):
    """A line as it was before the paste, and the number of the line in which it starts."""

    text: str
    number: int


class Mended(NamedTuple):
    """The text with its lines as they were; `numbers` are those of the lines they came from."""

    data: bytes
    numbers: tuple[int, ...]


def mend(data: bytes) -> Mended | None:
    """Return the text before it was pasted. None for a log that needs no mending."""
    if len(data) > LARGEST:
        return None
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = [Piece(line, number) for number, line in enumerate(text.split("\n"), 1)]
    pieces = _unwrapped(_split(_ungrepped(_unescaped(_untagged(lines)))))
    if pieces == lines:
        return None
    joined = "\n".join(piece.text for piece in pieces)
    return Mended(joined.encode("utf-8", "replace"), tuple(piece.number for piece in pieces))


def _untagged(lines: list[Piece]) -> list[Piece]:
    """Remove HTML tags, if there are any; text between two of them in one line is a line."""
    if not any(_TAG.search(line.text) for line in lines):
        return lines
    plain = [(line, _TAG.sub("", _BREAK.sub("\n", line.text))) for line in lines]
    return [Piece(part, line.number) for line, text in plain for part in text.removesuffix("\n").split("\n")]


def _unescaped(lines: list[Piece]) -> list[Piece]:
    """Remove markdown's escapes and HTML's entities, if brackets or stars are escaped anywhere."""
    if not any(r"\[" in line.text or r"\*" in line.text or "&lt;" in line.text for line in lines):
        return lines
    return [Piece(unescape(line.text), line.number) for line in lines]


def _split(lines: list[Piece]) -> list[Piece]:
    """Restore line ends that became blanks: another line's prefix inside a line shows them."""
    pieces: list[Piece] = []
    is_one_line = sum(bool(line.text.strip()) for line in lines) == 1
    for line in lines:
        parts = _parts(line.text)
        if len(parts) > 1 and not is_one_line and (prefix := read_prefix(line.text)):
            parts = parts if is_of_storage(prefix.ident) else []  # daemons quote guests and clients
        pieces.extend(Piece(part, line.number) for part in parts if part) if len(parts) > 1 else pieces.append(line)
    return pieces


def _parts(text: str) -> list[str]:
    """Return the lines that `text` was; a prefix that a user wrote into a name begins none."""
    parts: list[str] = []
    at = 0
    for found in _INSIDE.finditer(text):
        before = text[at : min(found.start(), at + _LONGEST_OPEN)]
        if _WORD.search(before) and (len(before) == _LONGEST_OPEN or not is_open(before)):
            parts.append(text[at : found.start()].rstrip())
            at = found.start()
    return [*parts, text[at:].rstrip()]


def _ungrepped(lines: list[Piece]) -> list[Piece]:
    """Remove the file names and line numbers that grep put before every line."""
    found = [_GREPPED.match(line.text) for line in lines if line.text]
    if len(found) < _ENOUGH or not all(found):
        return lines
    return [
        Piece(line.text[match.end() :] if (match := _GREPPED.match(line.text)) else "", line.number) for line in lines
    ]


def _unwrapped(lines: list[Piece]) -> list[Piece]:
    """Join lines that were cut at a width."""
    forms = [_form(line.text) for line in lines]
    if not any(forms) or "journal" in forms:
        return lines
    every_line_prefixed = not {"raw", "nova", "xapi"} & set(forms)
    width = max(len(line.text) for line in lines)
    hard = _is_cut_hard(lines, forms, width, every_line_prefixed=every_line_prefixed)
    mailed = every_line_prefixed and _is_mailed(lines, forms)
    joined: list[Piece] = []
    for index, line in enumerate(lines):
        before = lines[index - 1].text if index else ""
        if not joined or not line.text or forms[index]:
            joined.append(line)
        elif hard and len(before) == width:
            joined[-1] = Piece(joined[-1].text + line.text, joined[-1].number)
        elif (mailed or _never_ends_so(before)) and _was_broken(before, line.text, width):
            glue = "" if before.endswith(("/", "-")) else " "
            joined[-1] = Piece(joined[-1].text + glue + line.text.strip(), joined[-1].number)
        else:
            joined.append(line)
    return joined


def _is_mailed(lines: list[Piece], forms: list[str]) -> bool:
    """Return True if a mail program broke the lines: none is long, and several go on in the next."""
    longest = max(len(line.text) for line, form in zip(lines, forms, strict=True) if form)
    broken = sum(
        bool(forms[index]) and not forms[index + 1] and _was_broken(line.text, lines[index + 1].text, longest)
        for index, line in enumerate(lines[:-1])
    )
    return longest <= _WIDEST_MAIL and broken >= _BROKEN


def _form(text: str) -> str:
    if text.startswith('{"'):
        return "journal"
    found = read_prefix(text)
    return found.form if found else ""


def _is_cut_hard(lines: list[Piece], forms: list[str], width: int, *, every_line_prefixed: bool) -> bool:
    """Return True if lines were cut at exactly `width` characters, as a terminal does."""
    if width < _NARROWEST:
        return False
    followed = [
        len(line.text) == width
        for index, line in enumerate(lines[:-1])
        if line.text and lines[index + 1].text and not forms[index + 1]
    ]
    cut, full = sum(followed), sum(len(line.text) == width for line in lines)
    if cut * 2 < full or (every_line_prefixed and cut * 5 < len(followed) * 4):
        return False
    return cut >= 2 or (cut == 1 and width in _WIDTHS)


def _never_ends_so(before: str) -> bool:
    """Return True for text that ends no message, nor goes on in a line of its own: an EXCEPTION, half a path."""
    last = before.rsplit(maxsplit=1)[-1] if before.strip() else ""
    return ": EXCEPTION " in before or ("/" in last and last.endswith(("-", "/")))


def _was_broken(before: str, text: str, width: int) -> bool:
    """Return True if a mail program would have broken the line: the next word had no room."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    had_room = len(before) + 1 + len(word) <= min(width, _WIDEST_MAIL)
    return not had_room and (len(before) >= _SHORTEST_CUT or before.endswith(("/", "-")))
