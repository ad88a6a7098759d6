"""The options of the commands, each with its help; options that belong together are a group.

A command takes a group as one keyword parameter (``report: Report``); :func:`expanded` replaces it by its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

EPILOG = (
    "Exit codes add up: 0 nothing wrong or nothing left to do; 1 repaired; 4 something is left to do "
    "(refused, not found, a dry run's plan, or an invalid image); 8 failed, locked, unreadable or "
    "missing; 16 usage; 32 interrupted."
)


Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="A path, a block device, a VDI UUID, a prefix of it (8 hex digits or more), "
        "SR-UUID/VDI-UUID, or an SR folder (all its VHDs).",
    ),
]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="One image, named as for `smfix check`.")]
SrMount = Annotated[
    list[str] | None,
    typer.Option(
        "--sr-mount",
        metavar="DIR",
        help="Where file SRs are mounted: DIR/<SR>/<VDI>.vhd. Repeatable. Default: /run/sr-mount, "
        "else /var/run/sr-mount.",
    ),
]
XapiLogin = Annotated[
    str | None,
    typer.Option(
        "--xapi-login",
        metavar="FILE",
        envvar="SMFIX_XAPI_LOGIN",
        help="How to reach a pool's XAPI: TOML with url (https), user, password and, if its certificate is "
        "self-signed, ca; mode 0600. Default: SMFIX_XAPI_URL, _USER, _PASSWORD and _CA, else this host's own XAPI.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Apply every SAFE repair without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Change nothing, take no lock, say what would be done.")]
Confirm = Annotated[
    list[str] | None,
    typer.Option(
        "--confirm",
        metavar="CODE",
        help="Consent to repairs of this CONFIRM finding. Repeatable. Adds to --yes or to an "
        "answered prompt, replaces neither.",
    ),
]
NoRescan = Annotated[
    bool, typer.Option("--no-rescan", help="Do not ask the storage manager for an SR.scan after repairs.")
]
JournalDir = Annotated[
    str | None,
    typer.Option(
        "--journal-dir",
        metavar="DIR",
        envvar="SMFIX_JOURNAL_DIR",
        help="Undo journals. Default: /var/lib/smfix/journal (root) or the XDG state folder.",
    ),
]
LockDir = Annotated[
    str | None,
    typer.Option(
        "--sm-lock-dir",
        metavar="DIR",
        help="The storage manager's lock folder. Default: /var/lock/sm, on a XenServer or XCP-ng "
        "host only; naming one takes the locks on any machine.",
    ),
]
GcWait = Annotated[
    str | None,
    typer.Option(
        "--gc-wait",
        metavar="DURATION",
        help="How long this run waits in all while the storage manager's GC is at work on an SR: 0s, 90s, 15m, 2h, "
        "1d. Default: 30s.",
    ),
]
Policy = Annotated[
    str | None, typer.Option("--policy", metavar="FILE", help="With --follow: what may be done without asking (TOML).")
]
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="SMFIX_STATE_DIR",
        help="Where --follow keeps its state. Default: /var/lib/smfix/follow (root) or the XDG state folder.",
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="FILE", help="With --follow: a .prom file for node-exporter's textfile collector."
    ),
]
UnitDir = Annotated[
    str | None, typer.Option("--unit-dir", metavar="DIR", help="The unit's folder, if not /etc/systemd/system.")
]
Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Also save the report as one self-contained page.")
]
IncludeData = Annotated[
    bool,
    typer.Option(
        "--include-data", help="With --html: show the bytes in a footer's place even if they may be guest data."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there. Never asks.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also say on stderr why: which SR, which image, which findings. from-log: also which reports of trouble "
        "were set aside.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="As --verbose, with every step of the decisions.")]


class Storage(NamedTuple):
    """The storage in which images are searched, and the pool that is asked about them."""

    sr_mount: SrMount = None
    xapi_login: XapiLogin = None


class Consent(NamedTuple):
    """The operator's consent to write."""

    yes: Yes = False
    dry_run: DryRun = False
    confirm: Confirm = None
    no_rescan: NoRescan = False


class Writing(NamedTuple):
    """The options of a command that writes: its undo journals, the storage manager's locks, patience with GC."""

    journal_dir: JournalDir = None
    sm_lock_dir: LockDir = None
    gc_wait: GcWait = None


class Report(NamedTuple):
    """The forms of the report."""

    html: Html = None
    include_data: IncludeData = False
    as_json: AsJson = False


class Logging(NamedTuple):
    """How much is logged to stderr; every command takes these two."""

    verbose: Verbose = False
    debug: Debug = False


class Expanded(NamedTuple):
    """A command's signature with every group replaced by its options, and the groups by parameter."""

    signature: inspect.Signature
    groups: dict[str, Any]


def expanded(command: Callable[..., int]) -> Expanded:
    """Replace the groups in the signature of `command` by their options, and add those of :class:`Logging`."""
    parameters, groups = [], {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if hasattr(parameter.annotation, "_field_defaults"):
            groups[name] = parameter.annotation
            parameters += _options_of(parameter.annotation)
        else:
            parameters.append(parameter)
    if Logging not in groups.values():
        parameters += _options_of(Logging)
    return Expanded(inspect.Signature(parameters, return_annotation=int), groups)


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints, defaults = get_type_hints(group, include_extras=True), group._field_defaults
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, default=defaults[name], annotation=hints[name]) for name in group._fields]
