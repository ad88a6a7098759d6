"""Render the incident report as one self-contained page: no script, no request, everything escaped.

Theory. Text from a log, a file name or a pool passes two filters of the template engine, which no template can forget:
it is made printable (as for a terminal: no control character, no bidirectional override), then escaped for HTML. The
page's Content-Security-Policy forbids everything that it does not need, so even a mistake here can neither run code
nor send a request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from smfix.formats.diagram import LEGEND
from smfix.report import page_model
from smfix.report.escape import printable
from smfix.report.layout import counted, moment, span
from smfix.report.page_model import Card, Environment, Portrait, Relative, Table
from smfix.report.summary import short
from smfix.values import LogReading, Rescan

if TYPE_CHECKING:
    import jinja2

SIGNATURE = b'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
"""The first bytes of every page; the generator's name follows within :data:`SIGNED` bytes."""
GENERATOR = b'<meta name="generator" content="smfix '
SIGNED = 1024


@dataclass(frozen=True, slots=True)
class Page:
    """The content of one page. `portraits` belong to the first cards; `forest` is (folder, images, how many more)."""

    title: str
    sum: str
    cards: Sequence[Card]
    portraits: Sequence[Portrait]
    environment: Environment
    reading: LogReading | None = None
    rescans: Sequence[Rescan] = ()
    forest: Sequence[tuple[str, Sequence[Relative], int]] = ()
    include_data: bool = False
    undo_all: str = ""


def render(page: Page) -> str:
    """Render the page as HTML, ASCII only."""
    shown = page.cards[: len(page.portraits)]
    html = _template("page.html.j2").render(
        **{field.name: getattr(page, field.name) for field in fields(page)},
        shown=shown,
        next=_next(page),
        timeline=None if page.reading is None else page_model.timeline(page.reading, shown),
        legend=LEGEND,
        cells=page_model.CELLS,
        pieces=page_model.PIECES,
        **_style(),
    )
    return _ascii(html)


def render_tables(title: str, sums: Sequence[str], tables: Sequence[Table], environment: Environment) -> str:
    """Render a page of sentences and tables as HTML, ASCII only."""
    return _ascii(
        _template("tables.html.j2").render(title=title, sums=sums, tables=tables, environment=environment, **_style())
    )


def _style() -> dict[str, Any]:
    style = _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": _markup(style), "style_hash": digest}


def _ascii(html: str) -> str:
    return html.lstrip().encode("ascii", "xmlcharrefreplace").decode("ascii") + "\n"


def is_ours(head: bytes) -> bool:
    """Return True if `head`, the first bytes of a file, is that of a page made here."""
    return head.startswith(SIGNATURE) and GENERATOR in head[:SIGNED]


def _next(page: Page) -> list[str]:
    """Return the commands of the disks that are not settled, each once; else those of the settled ones."""
    waiting = [step for card in page.cards if not card.is_calm for step in card.next]
    done = [step for card in page.cards for step in card.next]
    return list(dict.fromkeys(waiting or done))[: page_model.PIECES]


def _asset(name: str) -> str:
    # resources, not a path: the single-file executable is a zip.
    return resources.files("smfix.report").joinpath("templates", name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own style sheet


@cache
def _template(name: str) -> jinja2.Template:
    # Imported here: only a page needs it.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        counted=counted,
        digits=lambda number: f"{number:,}",
        middle_cut=_middle_cut,
        moment=moment,
        short=short,
        span=span,
        whole=_whole,
    )
    return environment.from_string(_asset(name))


def _shown(value: object) -> object:
    """Make text from outside printable before it enters the page."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def _whole(text: object) -> Any:
    """Escape `text`, and keep UUIDs, journal ids and options from being broken at their dashes."""
    from markupsafe import Markup, escape

    return Markup(_DASHED.sub(r'<span class="word">\g<0></span>', str(escape(_shown(text)))))  # noqa: S704 - escaped


_DASHED = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9]{8}-[0-9]{6}-[0-9a-f]{6}|(?<=\s)--[a-z-]{1,40}"
)


def _middle_cut(items: Sequence[Any], most: int) -> list[Any]:
    """Return `items`, or the first and the last of them and between them a line with the number of the others."""
    if len(items) <= most:
        return list(items)
    half = most // 2
    return [*items[:half], f"({len(items) - 2 * half:,} more)", *items[-half:]]
