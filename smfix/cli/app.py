"""The command line: parse options, call a use case, render, choose the exit code. Nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple, cast

import typer

from smfix import __version__
from smfix.cli.console import emit, give_up_stdout, say
from smfix.cli.options import EPILOG
from smfix.values import Exit

_ABOUT = """From a XenServer / XCP-ng storage log to repaired, re-validated, undoable VHD disks.

`smfix demo` shows it on throw-away disks; `smfix from-log --dry-run` says what it would do on this host.
"""
_SHIELDED = 130  # what typer makes of an interrupt that it meets before we do


class _Command(NamedTuple):
    """Where a command is found in `smfix.cli`, and what the list of commands says of it."""

    module: str
    function: str
    help: str | None = None


_COMMANDS = {
    "from-log": _Command("from_log", "from_log", "read SMlog; find, repair and re-validate the disks it names"),
    "check": _Command("images", "check", "the verdict on each image; reads only"),
    "repair": _Command("images", "repair", "diagnose, plan, repair and re-validate the named images"),
    "scan": _Command("images", "scan_", "every VHD of an SR: verdict, sizes, chains"),
    "show": _Command("images", "show", "metadata as `vhd-util read -p` prints it"),
    "journal": _Command("journal", "journal", "what was changed on this machine"),
    "undo": _Command("journal", "undo", "put an image back as it was before a repair"),
    "explain": _Command("explain", "explain_", "what a finding means and what is done about it"),
    "status": _Command("service", "status", "what the followers of this host's logs know, and what waits"),
}
_SERVICE = {
    "install": _Command("service", "service_install"),
    "uninstall": _Command("service", "service_uninstall"),
    "reload": _Command("service", "service_reload"),
    "status": _Command("service", "service_status"),
}
_LAST = {"demo": _Command("explain", "demo", "a throw-away SR with damaged disks, repaired and proved")}


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    """What is asked of smfix itself."""
    if version:
        emit(f"smfix {__version__}\n")
        raise typer.Exit


def _empty(name: str, text: str, *, completes: bool = True) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=text,
        add_completion=completes,
        # rich would double the start-up, and its boxes break what people paste.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _add(app: typer.Typer, commands: Mapping[str, _Command]) -> None:
    """Import what `commands` are made of, and add them."""
    for name, found in commands.items():
        body = getattr(importlib.import_module(f"smfix.cli.{found.module}"), found.function)
        app.command(name, epilog=EPILOG, short_help=found.help)(body)


def application(asked: str | None = None) -> typer.Typer:
    """The command line; with the one command that was `asked` for, if it is one, and else with all.

    What the others need is not imported: that is half of the start-up.
    """
    app = _empty("smfix", _ABOUT, completes=asked is None)
    app.callback(invoke_without_command=False)(_root)
    every = _COMMANDS | _LAST
    if asked in every:
        _add(app, {asked: every[asked]})
        return app
    _add(app, _COMMANDS)
    service = _empty("service", "Run `from-log --follow` as a service of systemd.")
    _add(service, _SERVICE)
    app.add_typer(service, short_help="run `from-log --follow` as a service of systemd")
    fleet = _empty("fleet", "Many hosts at once.")
    fleet.callback()(lambda: None)  # else typer takes the one command for the group itself
    _add(fleet, {"report": _Command("fleet", "report")})
    app.add_typer(fleet, short_help="merge the outputs of many hosts into one report")
    _add(app, _LAST)
    return app


def run(arguments: Sequence[str], ready: Callable[[], None] = lambda: None) -> int:
    """Run one command line; return its exit code. `ready` is called when all is imported. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks must not stop us
            stream.reconfigure(errors="backslashreplace")
    # ClickException, wherever this version of typer keeps its click.
    usage_error = cast("type[Exception]", typer.BadParameter.__mro__[2])
    try:
        app = application(arguments[0] if arguments else None)
        ready()
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
