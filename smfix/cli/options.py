"""The options that several commands share, each with its help: one wording, one meaning."""

from __future__ import annotations

from typing import Annotated

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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Apply every SAFE repair without asking.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", "-n", help="Change nothing, take no lock, say what would be done."),
]
Confirm = Annotated[
    list[str] | None,
    typer.Option(
        "--confirm",
        metavar="CODE",
        help="Consent to repairs of this CONFIRM finding. Repeatable. Adds to --yes or to an "
        "answered prompt, replaces neither.",
    ),
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
XapiLogin = Annotated[
    str | None,
    typer.Option(
        "--xapi-login",
        metavar="FILE",
        envvar="SMFIX_XAPI_LOGIN",
        help="How to reach a pool's XAPI: TOML with url (https), user, password and, where its certificate is "
        "self-signed, ca; mode 0600. Default: SMFIX_XAPI_URL, _USER, _PASSWORD and _CA, else this host's own XAPI.",
    ),
]
NoRescan = Annotated[
    bool,
    typer.Option("--no-rescan", help="Leave out the SR.scan by which the storage manager goes on after repairs."),
]
Policy = Annotated[
    str | None,
    typer.Option("--policy", metavar="FILE", help="With --follow: what may be done without asking (TOML)."),
]
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="SMFIX_STATE_DIR",
        help="Where --follow keeps what it knows. Default: /var/lib/smfix/follow (root) or the XDG state folder.",
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="FILE", help="With --follow: a .prom file for node-exporter's textfile collector."
    ),
]
UnitDir = Annotated[
    str | None,
    typer.Option("--unit-dir", metavar="DIR", help="Where the unit lies, where that is not /etc/systemd/system."),
]
Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Also save the report as one self-contained page.")
]
IncludeData = Annotated[
    bool,
    typer.Option(
        "--include-data", help="With --html: show what stands where a footer belongs, though it may be a guest's data."
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout, nothing else there. Never asks."),
]
