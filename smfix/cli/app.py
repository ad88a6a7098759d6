"""The command line: parse options, call a use case, render, choose the exit code. Nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple, cast

import typer

from smfix import __version__
from smfix.cli.console import emit, give_up_stdout, say
from smfix.cli.options import EPILOG
from smfix.values import Exit

_ABOUT = """From a XenServer / XCP-ng storage log to repaired, re-validated, undoable VHD disks.

`smfix demo` shows it on throw-away disks; `smfix from-log --dry-run` says what it would do on this host.
"""
_SHIELDED = 130  # typer's exit code for an interrupt that it catches itself


_COMMANDS = {
    "from-log": "read SMlog; find, repair and re-validate the disks it names",
    "check": "the verdict on each image; reads only",
    "repair": "diagnose, plan, repair and re-validate the named images",
    "scan": "every VHD of an SR: verdict, sizes, chains",
    "show": "metadata as `vhd-util read -p` prints it",
    "journal": "what was changed on this machine",
    "undo": "put an image back as it was before a repair",
    "explain": "what a finding means and what is done about it",
    "status": "the followers of this host's logs, and what waits",
}
"""The short help of each command: the function of the same name in the module of the same name in `smfix.cli`."""
_LAST = {"demo": "a throw-away SR with damaged disks, repaired and proved"}


class _Group(NamedTuple):
    help: str
    short_help: str
    commands: tuple[str, ...]


_GROUPS = {
    "service": _Group(
        "Run `from-log --follow` as a service of systemd.",
        "run `from-log --follow` as a service of systemd",
        ("install", "uninstall", "reload", "status"),
    ),
    "fleet": _Group("Many hosts at once.", "merge the outputs of many hosts into one report", ("report",)),
}
"""The commands of each group are the functions of the module of its name."""


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    """Take the options of smfix itself."""
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


def _add(app: typer.Typer, module: str, name: str, short_help: str | None = None) -> None:
    """Import the module of a command, and add the command."""
    body = getattr(importlib.import_module(f"smfix.cli.{module.replace('-', '_')}"), name.replace("-", "_"))
    app.command(name, epilog=EPILOG, short_help=short_help)(body)


def application(asked: str | None = None) -> typer.Typer:
    """Build the command line: with the command `asked` only, if that is one; else with all commands.

    The modules of the other commands are not imported: that would double the start-up.
    """
    app = _empty("smfix", _ABOUT, completes=asked is None)
    app.callback(invoke_without_command=False)(_root)
    every = _COMMANDS | _LAST
    if asked in every:
        _add(app, asked, asked, every[asked])
        return app
    for name, words in _COMMANDS.items():
        _add(app, name, name, words)
    for name, group in _GROUPS.items():
        below = _empty(name, group.help)
        below.callback()(lambda: None)  # else typer takes a single command for the group itself
        for command in group.commands:
            _add(below, name, command)
        app.add_typer(below, short_help=group.short_help)
    for name, words in _LAST.items():
        _add(app, name, name, words)
    return app


def run(arguments: Sequence[str], ready: Callable[[], None] = lambda: None) -> int:
    """Run one command line and return its exit code; call `ready` after the imports. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks is no error
            stream.reconfigure(errors="backslashreplace")
    # ClickException: versions of typer keep their click in different places.
    usage_error = cast("type[Exception]", typer.BadParameter.__mro__[2])
    try:
        app = application(arguments[0] if arguments else None)
        ready()
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="smfix", standalone_mode=False)
    except usage_error as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)
    except SystemExit:  # how typer ends if the reader of its help has ended
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
