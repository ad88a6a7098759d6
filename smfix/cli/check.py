"""`smfix check`: the verdict on each image."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import guarded, redraw
from smfix.cli.options import Report, Storage, Targets
from smfix.cli.output import finish, page_wanted, save, suggest_commands
from smfix.cli.prompt import run_options_of, with_pool
from smfix.report import jsondoc, text
from smfix.usecases.check import check as check_images


@guarded
def check(
    targets: Targets,
    *,
    parents: Annotated[bool, typer.Option("--parents", help="Walk the chain upwards.")] = False,
    storage: Storage,
    report: Report,
) -> int:
    """Say of each image whether it is sound, and what is wrong with it. Reads only."""
    page = page_wanted(report)
    with with_pool(run_options_of(storage), storage.xapi_login) as run_options:
        redraw("smfix: looking at the images")
        images = check_images(targets, run_options, parents=parents)
    document = jsondoc.check(images)
    save(page, document, lambda pages: pages.check(page, images, run_options))
    hint = "" if report.as_json else suggest_commands(images, run_options)
    return finish(text.check(images), document, hint, as_json=report.as_json)
