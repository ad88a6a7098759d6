"""`smfix from-log`: read a log, repair the disks that it names; once, or continuously while the log grows."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from smfix.cli.console import counting_meter, guarded, reading_meter, redraw, say
from smfix.cli.options import Consent, Logging, Metrics, Policy, Report, StateDir, Storage, Writing
from smfix.cli.output import finish, page_wanted, save
from smfix.cli.prompt import Watch, decider, ended, how_to_continue, rescanned, run_options_of, with_pool
from smfix.errors import Unreadable, UsageError
from smfix.report import jsondoc, text
from smfix.usecases.from_log import SMLOG, LogQuestion
from smfix.usecases.from_log import from_log as read_and_repair
from smfix.usecases.run_options import absolute, left_srs, planned
from smfix.values import StepKind


@guarded
def from_log(  # noqa: PLR0913 - the options of the contract
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOG]...", help="Files, writing, archives, `-`. Default: /var/log/SMlog."),
    ] = None,
    *,
    storage: Storage,
    consent: Consent,
    writing: Writing,
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
    report: Report,
    logging: Logging,
) -> int:
    """Read SMlog, find each damaged VHD, plan, repair, re-validate, report.

    Without --yes: on a terminal each plan is shown and you are asked, otherwise nothing is changed.
    """
    left = left_srs(leave_sr or ())
    asked = LogQuestion(tuple(logs or (SMLOG,)), tz=tz, year=year, since=since, until=until)
    if follow:
        from smfix.follow import commands

        if logging.verbose:
            raise UsageError("--verbose counts what was set aside at the end, and --follow has none")
        if writing.gc_wait is not None:
            raise UsageError("--gc-wait is for a run that ends; for --follow see gc-patience in the policy")
        if report.html is not None:
            raise UsageError("--follow has no end, so it has no report to save with --html")
        flags = (consent.yes, consent.dry_run, report.as_json)
        options = commands.FollowOptions(asked.names, *flags, since, until, tz, year, policy, state_dir, metrics)
        run_options = run_options_of(storage, writing, consent)._replace(left_srs=left, say=None)
        with with_pool(run_options, storage.xapi_login, rescan=not consent.no_rescan) as run_options:
            return commands.follow(options, run_options, sys.stdout, say)
    if not (policy is state_dir is metrics is None):
        raise UsageError("--policy, --state-dir and --metrics go with --follow")
    page = page_wanted(report)
    decide = decider(yes=consent.yes, dry_run=consent.dry_run, as_json=report.as_json)
    run_options = run_options_of(storage, writing, consent, decide)._replace(left_srs=left)
    if not logs and not os.path.lexists(SMLOG):
        raise Unreadable(f"{SMLOG}: No such file or directory; name the log: smfix from-log FILE")
    redraw("smfix: looking for the logs")  # before the modules that read them are imported
    with with_pool(run_options, storage.xapi_login, rescan=not consent.no_rescan) as run_options:
        watch = Watch(decide, counting_meter("looking at the disks", "disk"))
        reading, incidents = read_and_repair(asked, run_options, reading_meter(), watch.each, watch.after)
        rescans = rescanned([(one.sr, one.outcome) for one in incidents], run_options)
    outcomes = [one.outcome for one in incidents if one.outcome is not None]
    names = map(absolute, asked.names)
    step = run_options.step(StepKind.READ_LOGS, *names, options=[*asked.options(), "--yes"])
    hint = how_to_continue(run_options, planned(outcomes), step)
    words = "" if report.as_json else text.from_log(reading, incidents, rescans)
    if logging.verbose and report.as_json:
        for line in text.set_aside(reading).splitlines():
            say(line)
    elif logging.verbose:
        words += "\n\n" + text.set_aside(reading)
    document = jsondoc.from_log(reading, incidents, rescans)
    save(page, document, lambda pages: pages.from_log(page, reading, incidents, rescans, run_options))
    return ended(decide, finish(words, document, hint, as_json=report.as_json))
