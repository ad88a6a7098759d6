"""The end of a command: its report or document on stdout, and its page where one is wanted."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from smfix.cli.console import emit, say, unexpected
from smfix.errors import SmfixError
from smfix.report import jsondoc
from smfix.report.escape import command
from smfix.values import Exit

if TYPE_CHECKING:
    from smfix.usecases import html_report


def page_wanted(html: str | None, *, include_data: bool) -> html_report.Wanted | None:
    """The page that is wanted, before anything is done."""
    if html is None and not include_data:
        return None
    from smfix.usecases import html_report

    return html_report.wanted(html, include_data=include_data)


def save(page: html_report.Wanted | None, document: dict[str, Any], draw: Callable[[ModuleType], str]) -> None:
    """Save the page, where one is wanted. What is done is done: that it cannot be saved is one bit more."""
    if page is None:
        return
    from smfix.usecases import html_report

    try:
        html_report.save(page, draw(html_report))
    except SmfixError as error:
        say(f"smfix: {error}")
        document["exit"] |= int(error.exit_bit)
    except Exception as error:  # noqa: BLE001 - the report itself is still to be printed
        say(f"smfix: {unexpected(error)}")
        document["exit"] |= int(Exit.FAILED)
    else:
        say(f"smfix: the page is {page.file}")


def finish(report: str, document: dict[str, Any], hint: str, *, as_json: bool) -> int:
    """Print the report or the document; the exit code stands in the document either way."""
    if as_json:
        for piece in jsondoc.pieces(document):
            emit(piece)
        for line in hint.splitlines():
            say(line)
    else:
        emit(report + (f"\n\n{hint}\n" if hint else "\n"))
        if _COMMAND.search(f"{report}\n{hint}"):
            say_own_name()
    return int(document["exit"])


def say_own_name() -> None:
    """Tell somebody who was shown commands what to type for smfix, where that is another word."""
    if (other := _own_name()) is not None:
        say(f"smfix: where it says smfix, type {other}: smfix itself is not on PATH")


_COMMAND = re.compile(r"^ +(next +|undo +)?smfix [a-z]", re.MULTILINE)


def _own_name() -> str | None:
    """What somebody at a terminal types for smfix, where that is another name: one file that was copied somewhere."""
    own = sys.argv[0]
    if os.path.basename(own) != "smfix" or not sys.stderr.isatty() or shutil.which("smfix") is not None:
        return None
    return command([os.path.abspath(own)])
