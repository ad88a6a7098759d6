"""`smfix service`: the systemd unit of `from-log --follow`."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded, say
from smfix.cli.options import Metrics, Policy, SrMount, StateDir, UnitDir
from smfix.follow import commands
from smfix.follow import service as systemd
from smfix.usecases.from_log import SMLOG


@guarded
def install(
    *,
    log: Annotated[str, typer.Argument(metavar="[LOG]", help="The log to follow.")] = SMLOG,
    policy: Policy = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply every SAFE repair; else report only.")] = False,
    metrics: Metrics = None,
    sr_mount: SrMount = None,
    unit_dir: UnitDir = None,
) -> int:
    """Write the unit, enable and start it. Without --yes and --policy it reports and repairs nothing."""
    if policy is not None:
        commands.read_policy(policy)  # so that a mistake is reported now, not by the service
    options = systemd.options(log, policy=policy, yes=yes, metrics=metrics, sr_mounts=sr_mount or ())
    writable = [] if metrics is None else [commands.metrics_folder(metrics)]
    systemd.install(systemd.unit_text(systemd.program(), options, writable), unit_dir, say)
    return 0


@guarded
def uninstall(*, unit_dir: UnitDir = None) -> int:
    """Stop the service and remove its unit; journals and state stay."""
    systemd.uninstall(unit_dir, say)
    return 0


@guarded
def reload(*, state_dir: StateDir = None) -> int:
    """Have the running follower read its policy again, as SIGHUP does; a policy with a mistake changes nothing."""
    say(f"smfix: sent SIGHUP to process {', '.join(map(str, commands.reload(state_dir)))}")
    return 0


@guarded
def status(*, unit_dir: UnitDir = None) -> int:
    """Say whether the unit is there, enabled and running; 0 when it is installed and runs."""
    found = systemd.state(unit_dir)
    emit(systemd.words(found) + "\n")
    return 0 if found.installed and found.active in (None, "active") else 4
