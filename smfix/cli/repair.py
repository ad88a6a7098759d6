"""`smfix repair`: diagnose, plan, repair and re-validate images."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import counting_meter, guarded
from smfix.cli.options import Consent, Report, Storage, Targets, Writing
from smfix.cli.output import finish, page_wanted, save
from smfix.cli.prompt import Watch, decider, ended, how_to_continue, rescanned, run_options_of, with_pool
from smfix.report import jsondoc, text
from smfix.usecases.repair import repair as repair_images
from smfix.usecases.run_options import absolute, given_size, given_uuid, planned
from smfix.values import StepKind


@guarded
def repair(
    targets: Targets,
    *,
    storage: Storage,
    consent: Consent,
    writing: Writing,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The size of the guest's disk, if both footers are lost (VHD106): bytes, or with K, M, G or T.",
        ),
    ] = None,
    uuid: Annotated[
        str | None,
        typer.Option(metavar="UUID", help="The footer's UUID, if both footers are lost (VHD106)."),
    ] = None,
    report: Report,
) -> int:
    """Diagnose, plan, repair and re-validate the named images.

    Without --yes: on a terminal each plan is shown and you are asked, otherwise nothing is changed.
    """
    page = page_wanted(report)
    decide = decider(yes=consent.yes, dry_run=consent.dry_run, as_json=report.as_json)
    run_options = run_options_of(storage, writing, consent, decide)._replace(
        given_size=given_size(size),
        given_uuid=given_uuid(uuid),
    )
    with with_pool(run_options, storage.xapi_login, rescan=not consent.no_rescan) as run_options:
        watch = Watch(decide, counting_meter("looking at the disks", "disk"))
        images = repair_images(targets, run_options, watch.each, watch.after)
        rescans = rescanned([(one.sr, one.outcome) for one in images], run_options)
    count = planned([image.outcome for image in images])
    step = run_options.step(StepKind.REPAIR, *map(absolute, targets), options=["--yes"])
    hint = how_to_continue(run_options, count, step)
    document = jsondoc.repair(images, rescans)
    save(page, document, lambda pages: pages.repair(page, images, rescans, run_options))
    return ended(decide, finish(text.repair(images, rescans), document, hint, as_json=report.as_json))
