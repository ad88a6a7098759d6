"""`smfix status`: the state of the followers of this host's logs."""

from __future__ import annotations

from smfix.cli.console import guarded
from smfix.cli.options import AsJson, StateDir
from smfix.cli.output import finish
from smfix.follow import commands
from smfix.report import follow_report


@guarded
def status(*, state_dir: StateDir = None, as_json: AsJson = False) -> int:
    """Show each followed log: its incidents, the stage of each, and what it waits for."""
    followers, code = commands.status(state_dir)
    return finish(follow_report.table(followers), follow_report.status(followers, code), "", as_json=as_json)
