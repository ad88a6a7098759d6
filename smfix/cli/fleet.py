"""`smfix fleet report`: merge the outputs of many hosts."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from smfix.cli.console import counting_meter, guarded, say
from smfix.cli.options import AsJson, Html
from smfix.cli.options import Report as ReportOptions
from smfix.cli.output import finish, page_wanted, save
from smfix.fleet import load, render


@guarded
def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE-OR-FOLDER...",
            help="Outputs of --json (from-log, scan, check, repair, status), named after their hosts: HOST.json, "
            "HOST.scan.json, HOST/scan.json; bug-report archives; folders of both.",
        ),
    ],
    *,
    html: Html = None,
    as_json: AsJson = False,
) -> int:
    """Merge the outputs of many hosts: which SR, which cause, since when, what was repaired and what is left.

    A disk that several hosts see counts once. Hosts that could not be reached, or whose output cannot be read, are
    named; the others are reported all the same. Reads files only, asks no host.
    """
    page = page_wanted(ReportOptions(html))
    fleet = load.find(names)
    picture = load.read(fleet, lambda line: say(f"smfix: {line}"), counting_meter("reading", "file"))
    document = render.document(picture, fleet.passed_over, fleet.notes)
    for note in fleet.notes:
        say(f"smfix: {note}")
    sums = [render.sum_up(picture), *([render.incomplete(picture)] if picture.left_out else ())]
    draw = lambda pages: pages.of_fleet("Fleet report", sums, render.tables(picture), sys.argv)  # noqa: E731
    save(page, document, draw)
    return finish("" if as_json else render.text(picture), document, "", as_json=as_json)
