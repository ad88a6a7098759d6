"""The command line: parse options, call a use case, render, choose the exit code. Nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from smfix import __version__
from smfix.cli import fleet as fleets
from smfix.cli import following, images, learning, logs, records
from smfix.cli.console import emit, give_up_stdout, say
from smfix.cli.options import EPILOG
from smfix.model import Exit

_SHIELDED = 130  # what typer makes of an interrupt that it meets before we do

app = typer.Typer(
    name="smfix",
    # rich would double the start-up, and its boxes break what people paste.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=False)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    """From a XenServer / XCP-ng storage log to repaired, re-validated, undoable VHD disks."""
    if version:
        emit(f"smfix {__version__}\n")
        raise typer.Exit


app.command("from-log", epilog=EPILOG, short_help="read SMlog; find, repair and re-validate the disks it names")(
    logs.from_log
)
app.command("check", epilog=EPILOG, short_help="the verdict on each image; reads only")(images.check)
app.command("repair", epilog=EPILOG, short_help="diagnose, plan, repair and re-validate the named images")(
    images.repair
)
app.command("scan", epilog=EPILOG, short_help="every VHD of an SR: verdict, sizes, chains")(images.scan_)
app.command("show", epilog=EPILOG, short_help="metadata as `vhd-util read -p` prints it")(images.show)
app.command("journal", epilog=EPILOG, short_help="what was changed on this machine")(records.journal)
app.command("undo", epilog=EPILOG, short_help="put an image back as it was before a repair")(records.undo)
app.command("explain", epilog=EPILOG, short_help="what a finding means and what is done about it")(learning.explain_)
app.command("status", epilog=EPILOG, short_help="what the followers of this host's logs know, and what waits")(
    following.status
)

service = typer.Typer(
    name="service", help="Run `from-log --follow` as a service of systemd.", no_args_is_help=True, epilog=EPILOG
)
app.add_typer(service, short_help="run `from-log --follow` as a service of systemd")
service.command("install", epilog=EPILOG)(following.service_install)
service.command("uninstall", epilog=EPILOG)(following.service_uninstall)
service.command("reload", epilog=EPILOG)(following.service_reload)
service.command("status", epilog=EPILOG)(following.service_status)
fleet = typer.Typer(name="fleet", help="Many hosts at once.", no_args_is_help=True, epilog=EPILOG)
app.add_typer(fleet, short_help="merge the outputs of many hosts into one report")
fleet.callback()(lambda: None)  # else typer takes the one command for the group itself
fleet.command("report", epilog=EPILOG)(fleets.report)
app.command("demo", epilog=EPILOG, short_help="a throw-away SR with damaged disks, repaired and proved")(learning.demo)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks must not stop us
            stream.reconfigure(errors="backslashreplace")
    # ClickException, wherever this version of typer keeps its click.
    usage_error = cast("type[Exception]", typer.BadParameter.__mro__[2])
    try:
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="smfix", standalone_mode=False)
    except usage_error as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)
    except SystemExit:  # how typer ends when the reader of its help has gone away
        return 0
    except OSError as error:
        give_up_stdout()
        say(f"smfix: cannot write to standard output: {error.strerror}")
        return int(Exit.FAILED)
    code = code or 0
    return int(Exit.INTERRUPTED) if code == _SHIELDED else int(code)


def _usage(error: BaseException) -> int:
    context = getattr(error, "ctx", None)
    where = "smfix" if context is None else context.command_path
    words = error.format_message() if hasattr(error, "format_message") else str(error)
    if words.startswith("Usage:"):  # no command at all: typer's message is the whole help
        for line in words.splitlines():
            say(line)
    else:
        say(f"smfix: {words} See `{where} --help`.")
    return int(Exit.USAGE)
