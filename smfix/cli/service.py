"""`smfix status` and `smfix service`: the follower of this host's logs, and its unit."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded, say
from smfix.cli.options import AsJson, Metrics, Policy, SrMount, StateDir, UnitDir
from smfix.cli.output import finish
from smfix.usecases import from_log


@guarded
def status(*, state_dir: StateDir = None, as_json: AsJson = False) -> int:
    """Say how each followed log stands: its incidents, how far each has come, and what it waits for."""
    from smfix.follow import commands
    from smfix.report import follow_report

    followers, code = commands.status(state_dir)
    return finish(follow_report.table(followers), follow_report.status(followers, code), "", as_json=as_json)


@guarded
def service_install(
    *,
    log: Annotated[str, typer.Argument(metavar="[LOG]", help="The log to follow.")] = from_log.SMLOG,
    policy: Policy = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply every SAFE repair; else report only.")] = False,
    metrics: Metrics = None,
    sr_mount: SrMount = None,
    unit_dir: UnitDir = None,
) -> int:
    """Write the unit, enable and start it. Without --yes and --policy it reports and repairs nothing."""
    from smfix.follow import commands
    from smfix.follow import service as systemd

    if policy is not None:
        commands.read_policy(policy)  # a mistake is told now, not by the service
    options = systemd.options(log, policy=policy, yes=yes, metrics=metrics, sr_mounts=sr_mount or ())
    writable = [] if metrics is None else [commands.metrics_folder(metrics)]
    systemd.install(systemd.unit_text(systemd.program(), options, writable), unit_dir, say)
    return 0


@guarded
def service_uninstall(*, unit_dir: UnitDir = None) -> int:
    """Stop the service and take its unit away; journals and state stay."""
    from smfix.follow import service as systemd

    systemd.uninstall(unit_dir, say)
    return 0


@guarded
def service_reload(*, state_dir: StateDir = None) -> int:
    """Have the running follower read its policy again, as SIGHUP does; a policy with a mistake changes nothing."""
    from smfix.follow import commands

    pids = commands.reload(state_dir)
    say(f"smfix: told process {', '.join(map(str, pids))}")
    return 0


@guarded
def service_status(*, unit_dir: UnitDir = None) -> int:
    """Say whether the unit is there, enabled and running; 0 when it is installed and runs."""
    from smfix.follow import service as systemd

    found = systemd.state(unit_dir)
    emit(systemd.words(found) + "\n")
    return 0 if found.installed and found.active in (None, "active") else 4
