"""End a command: print its report or document, and save its page."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from smfix.cli.console import emit, say, unexpected
from smfix.cli.options import Report
from smfix.errors import SmfixError
from smfix.report import jsondoc, next_steps
from smfix.report.escape import command
from smfix.values import CheckedImage, Exit, StepKind

if TYPE_CHECKING:
    from smfix.usecases import html_report
    from smfix.usecases.run_options import RunOptions

_FEW = 3
"""Damaged images that the next command names one by one; for more, their folders."""


def page_wanted(report: Report) -> html_report.Wanted | None:
    """Return the page to save; a file that cannot be written is an error before anything is done."""
    if report.html is None and not report.include_data:
        return None
    from smfix.usecases import html_report

    return html_report.wanted(report.html, include_data=report.include_data)


def save(page: html_report.Wanted | None, document: dict[str, Any], draw: Callable[[ModuleType], str]) -> None:
    """Save the page, if there is one. An error adds its bit to the exit code; the report is printed all the same."""
    if page is None:
        return
    from smfix.usecases import html_report

    try:
        html_report.save(page, draw(html_report))
    except SmfixError as error:
        say(f"smfix: {error}")
        document["exit"] |= int(error.exit_bit)
    except Exception as error:  # noqa: BLE001 - the report is still to be printed
        say(f"smfix: {unexpected(error)}")
        document["exit"] |= int(Exit.FAILED)
    else:
        say(f"smfix: the page is {page.file}")


def suggest_commands(images: Sequence[CheckedImage], run_options: RunOptions) -> str:
    """Return the commands to type next, which work in every folder."""
    from smfix.usecases.run_options import absolute as absolute_name

    def absolute(path: str | None) -> str | None:
        return None if path is None else absolute_name(path)

    here = [image._replace(path=absolute_name(image.path), parent=absolute(image.parent)) for image in images]
    return next_steps.suggest(
        here, lambda paths: run_options.step(StepKind.REPAIR, *paths, options=["--dry-run"]), _FEW
    )


def finish(report: str, document: dict[str, Any], hint: str, *, as_json: bool) -> int:
    """Print the report or the document, and the hint; return the document's exit code."""
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
    """Say what to type instead of "smfix" in the printed commands, if smfix is not on PATH."""
    if (other := _own_name()) is not None:
        say(f"smfix: type {other} instead of smfix: smfix itself is not on PATH")


_COMMAND = re.compile(r"^ +(next +|undo +)?smfix [a-z]", re.MULTILINE)


def _own_name() -> str | None:
    """Return the path of this smfix if it is a file outside PATH that was started on a terminal."""
    own = sys.argv[0]
    if os.path.basename(own) != "smfix" or not sys.stderr.isatty() or shutil.which("smfix") is not None:
        return None
    return command([os.path.abspath(own)])
