"""`smfix check`, `repair`, `scan` and `show`: images that somebody names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from smfix.cli.console import counting_meter, emit, guarded, redraw, say, width
from smfix.cli.options import (
    AsJson,
    Confirm,
    DryRun,
    GcWait,
    Html,
    IncludeData,
    JournalDir,
    LockDir,
    NoRescan,
    SrMount,
    Target,
    Targets,
    XapiLogin,
    Yes,
)
from smfix.cli.output import finish, page_wanted, save
from smfix.cli.prompt import Watch, decider, ended, how_to_go_on, rescanned, setting_of, with_pool
from smfix.formats.vhd import metadata
from smfix.report import diagram, jsondoc, next_steps, scan_report, text
from smfix.report.hexdump import hexdump
from smfix.usecases import from_log, scan
from smfix.values import CheckedImage

_FEW = 3
"""Damaged images that the next command names one by one; for more, their folders."""


def _onward(images: Sequence[CheckedImage], run_options: from_log.RunOptions) -> str:
    """What to type next, from whatever folder."""

    def placed(path: str | None) -> str | None:
        return None if path is None else from_log.absolute(path)

    here = [image._replace(path=from_log.absolute(image.path), parent=placed(image.parent)) for image in images]
    return next_steps.onward(here, lambda paths: run_options.command("repair", *paths, "--dry-run"), _FEW)


@guarded
def check(
    targets: Targets,
    *,
    parents: Annotated[bool, typer.Option("--parents", help="Walk the chain upwards.")] = False,
    sr_mount: SrMount = None,
    xapi_login: XapiLogin = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Say of each image whether it is sound, and what is wrong with it. Reads only."""
    page = page_wanted(html, include_data=include_data)
    run_options = setting_of(sr_mount, None, None, None, None)
    with with_pool(run_options, xapi_login) as run_options:
        redraw("smfix: looking at the images")
        try:
            images = from_log.check(targets, run_options, parents=parents)
        finally:
            redraw("")
    document = jsondoc.check(images)
    save(page, document, lambda pages: pages.check(page, images, run_options))
    hint = "" if as_json else _onward(images, run_options)
    return finish(text.check(images), document, hint, as_json=as_json)


@guarded
def repair(  # noqa: PLR0913 - the options of the contract
    targets: Targets,
    *,
    sr_mount: SrMount = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    journal_dir: JournalDir = None,
    sm_lock_dir: LockDir = None,
    gc_wait: GcWait = None,
    xapi_login: XapiLogin = None,
    no_rescan: NoRescan = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The size of the guest's disk, where both footers are lost (VHD106): bytes, or with K, M, G or T.",
        ),
    ] = None,
    uuid: Annotated[
        str | None,
        typer.Option(metavar="UUID", help="The footer's UUID, where both footers are lost (VHD106)."),
    ] = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Diagnose, plan, repair and re-validate the named images.

    Without --yes: on a terminal each plan is shown and you are asked, otherwise nothing is changed.
    """
    page = page_wanted(html, include_data=include_data)
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    run_options = setting_of(sr_mount, journal_dir, sm_lock_dir, confirm, decide, gc_wait)._replace(
        given_size=from_log.given_size(size),
        given_uuid=from_log.given_uuid(uuid),
    )
    with with_pool(run_options, xapi_login, rescan=not no_rescan) as run_options:
        try:
            watch = Watch(decide, counting_meter("looking at the disks", "disk"))
            images = from_log.repair(targets, run_options, watch.each, watch.after)
        finally:
            redraw("")
        rescans = rescanned([(one.sr, one.outcome) for one in images], run_options)
    planned = from_log.planned([image.outcome for image in images])
    hint = how_to_go_on(run_options, planned, ["repair", *map(from_log.absolute, targets)])
    document = jsondoc.repair(images, rescans)
    save(page, document, lambda pages: pages.repair(page, images, rescans, run_options))
    return ended(decide, finish(text.repair(images, rescans), document, hint, as_json=as_json))


@guarded
def scan_(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SR-OR-FOLDER]...", help="An SR's UUID, a folder, or images. Default: every SR."),
    ] = None,
    *,
    sr_mount: SrMount = None,
    xapi_login: XapiLogin = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Say of every VHD of an SR whether it is sound, and draw the chains. Reads only."""
    page = page_wanted(html, include_data=include_data)
    try:
        with with_pool(setting_of(sr_mount, None, None, None, None), xapi_login) as run_options:
            redraw("smfix: looking for the images")
            images = scan.scan(
                targets or (), sr_mount or (), counting_meter("scanning", "image"), run_options.pool, run_options.say
            )
    finally:
        redraw("")
    report = "" if as_json else scan_report.text(images)
    document = scan_report.document(images) if as_json else {"exit": scan_report.exit_code(images)}
    save(page, document, lambda pages: pages.of_scan(page, images, run_options))
    hint = "" if as_json else _onward([one.checked for one in images], run_options)
    return finish(report, document, hint, as_json=as_json)


@guarded
def show(
    target: Target,
    *,
    hex_dump: Annotated[bool, typer.Option("--hex", help="Both footers, as `hexdump -C` prints them.")] = False,
    file_layout: Annotated[
        bool, typer.Option("--layout", help="A picture of the file: what lies where, and where its footer belongs.")
    ] = False,
    sr_mount: SrMount = None,
    as_json: AsJson = False,
) -> int:
    """Print an image's metadata in the layout of `vhd-util read -p`."""
    path, image, seen = from_log.show(target, setting_of(sr_mount, None, None, None, None))
    if file_layout and not as_json:
        emit(diagram.text(diagram.diagram(image), path, width()) + ("\n\n" if hex_dump else "\n"))
    if hex_dump and not as_json:
        parts = [f"{title}\n{hexdump(raw, offset)}" for title, offset, raw in metadata.footers(image)]
        emit("\n".join(parts))
    if (hex_dump or file_layout) and not as_json:
        return 0
    for note in metadata.notes(image, seen):
        say(f"smfix: {note}")
    emit(jsondoc.dumps(jsondoc.show(path, image)) if as_json else metadata.metadata(seen, path))
    return 0
