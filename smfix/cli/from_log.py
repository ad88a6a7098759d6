"""`smfix from-log`: a log in, repaired disks out; once, or for as long as the log grows."""

import os
import sys
from typing import Annotated

import typer

from smfix.cli.console import counting_meter, guarded, reading_meter, redraw, say
from smfix.cli.options import (
    AsJson,
    Confirm,
    DryRun,
    GcWait,
    Html,
    IncludeData,
    JournalDir,
    LockDir,
    Metrics,
    NoRescan,
    Policy,
    SrMount,
    StateDir,
    XapiLogin,
    Yes,
)
from smfix.cli.output import finish, page_wanted, save
from smfix.cli.prompt import Watch, decider, ended, how_to_go_on, rescanned, setting_of, with_pool
from smfix.errors import Unreadable, UsageError
from smfix.report import jsondoc, text
from smfix.usecases import from_log as from_log_module


@guarded
def from_log(  # noqa: PLR0913 - the options of the contract
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOG]...", help="Files, folders, archives, `-`. Default: /var/log/SMlog."),
    ] = None,
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
    leave_sr: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-sr", metavar="UUID", help="Leave this SR's disks alone: another host is its master. Repeatable."
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From then on; also 2h, 3d before now.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to then.")] = None,
    tz: Annotated[str | None, typer.Option(metavar="ZONE", help="The zone of a log that names none.")] = None,
    year: Annotated[
        int | None,
        typer.Option(metavar="YEAR", help="The year of the last line of a log that names none."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Live, until stopped, from where the last run stopped (`--since now`: new lines only). Never asks; "
            "writes only with --yes or a --policy that allows it. --json: one event a line.",
        ),
    ] = False,
    policy: Policy = None,
    state_dir: StateDir = None,
    metrics: Metrics = None,
    html: Html = None,
    include_data: IncludeData = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say how many reports of trouble were set aside, and why.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Read SMlog, find each damaged VHD, plan, repair, re-validate, report.

    Without --yes: on a terminal each plan is shown and you are asked, otherwise nothing is changed.
    """
    left = from_log_module.left_srs(leave_sr or ())
    if follow and verbose:
        raise UsageError("--verbose counts what was set aside at the end, and --follow has none")
    if follow and gc_wait is not None:
        raise UsageError("--gc-wait is for a run that ends; for --follow see gc-patience in the policy")
    if follow and html is not None:
        raise UsageError("--follow has no end, so it has no report to save with --html")
    if follow:
        from smfix.follow import commands

        options = commands.FollowOptions(
            tuple(logs or (from_log_module.SMLOG,)),
            yes,
            dry_run,
            as_json,
            since,
            until,
            tz,
            year,
            policy,
            state_dir,
            metrics,
        )
        run_options = setting_of(sr_mount, journal_dir, sm_lock_dir, confirm, None)._replace(left_srs=left, say=None)
        with with_pool(run_options, xapi_login, rescan=not no_rescan) as run_options:
            return commands.follow(options, run_options, sys.stdout, say)
    if not (policy is state_dir is metrics is None):
        raise UsageError("--policy, --state-dir and --metrics go with --follow")
    page = page_wanted(html, include_data=include_data)
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    run_options = setting_of(sr_mount, journal_dir, sm_lock_dir, confirm, decide, gc_wait)._replace(left_srs=left)
    names = tuple(logs or (from_log_module.SMLOG,))
    if not logs and not os.path.lexists(from_log_module.SMLOG):
        raise Unreadable(f"{from_log_module.SMLOG}: No such file or directory; name the log: smfix from-log FILE")
    redraw("smfix: looking for the logs")  # at once: what reads them is still to be loaded
    asked = from_log_module.LogQuestion(names, tz=tz, year=year, since=since, until=until)
    with with_pool(run_options, xapi_login, rescan=not no_rescan) as run_options:
        try:
            watch = Watch(decide, counting_meter("looking at the disks", "disk"))
            reading, incidents = from_log_module.from_log(asked, run_options, reading_meter(), watch.each, watch.after)
        finally:
            redraw("")
        rescans = rescanned([(one.sr, one.outcome) for one in incidents], run_options)
    outcomes = [one.outcome for one in incidents if one.outcome is not None]
    hint = how_to_go_on(run_options, from_log_module.planned(outcomes), ["from-log", *asked.words()])
    report = "" if as_json else text.from_log(reading, incidents, rescans)
    if verbose and as_json:
        for line in text.set_aside(reading).splitlines():
            say(line)
    elif verbose:
        report += "\n\n" + text.set_aside(reading)
    document = jsondoc.from_log(reading, incidents, rescans)
    save(page, document, lambda pages: pages.from_log(page, reading, incidents, rescans, run_options))
    return ended(decide, finish(report, document, hint, as_json=as_json))
