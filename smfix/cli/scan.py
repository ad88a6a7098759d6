"""`smfix scan`: every VHD of an SR."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import counting_meter, guarded, redraw
from smfix.cli.options import Report, Storage
from smfix.cli.output import finish, page_wanted, save, suggest_commands
from smfix.cli.prompt import run_options_of, with_pool
from smfix.report import scan_report
from smfix.usecases.scan import scan as scan_images


@guarded
def scan(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SR-OR-FOLDER]...", help="An SR's UUID, a folder, or images. Default: every SR."),
    ] = None,
    *,
    storage: Storage,
    report: Report,
) -> int:
    """Say of every VHD of an SR whether it is sound, and draw the chains. Reads only."""
    page = page_wanted(report)
    with with_pool(run_options_of(storage), storage.xapi_login) as run_options:
        redraw("smfix: looking for the images")
        images = scan_images(
            targets or (),
            storage.sr_mount or (),
            counting_meter("scanning", "image"),
            run_options.pool,
            run_options.say,
        )
    words = "" if report.as_json else scan_report.text(images)
    document = scan_report.document(images) if report.as_json else {"exit": scan_report.exit_code(images)}
    save(page, document, lambda pages: pages.of_scan(page, images, run_options))
    hint = "" if report.as_json else suggest_commands([one.checked for one in images], run_options)
    return finish(words, document, hint, as_json=report.as_json)
