"""The command line: parse options, call a use case, render, choose the exit code. Nothing else.

Reports go to stdout; progress, questions and errors to stderr. No exception leaves a command: an
error is one line and its exit bit (contract, Exit codes).
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from smfix import __version__, pipeline, scan
from smfix.errors import SmfixError, Unreadable, UsageError, WriteFailed
from smfix.model import Exit, Outcome, Record, Verdict
from smfix.report import exitcode, explain, journals, jsondoc, layout, metadata, meter, picture, scanned, text
from smfix.report.escape import operand, printable
from smfix.report.hexdump import hexdump

if TYPE_CHECKING:
    from smfix import pages

EPILOG = (
    "Exit codes add up: 0 nothing wrong or nothing left to do; 1 repaired; 4 something is left to do "
    "(refused, not found, a dry run's plan, or an invalid image); 8 failed, locked, unreadable or "
    "missing; 16 usage; 32 interrupted."
)
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

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="A path, a block device, a VDI UUID, a prefix of it (8 hex digits or more), "
        "SR-UUID/VDI-UUID, or an SR folder (all its VHDs).",
    ),
]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="As for `smfix check`; one image.")]
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
XapiLogin = Annotated[
    str | None,
    typer.Option(
        "--xapi-login",
        metavar="FILE",
        envvar="SMFIX_XAPI_LOGIN",
        help="How to reach a pool's XAPI: TOML with url (https), user, password and, where its certificate is "
        "its own, ca; mode 0600. Default: SMFIX_XAPI_URL, _USER, _PASSWORD and _CA, else this host's own XAPI.",
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
    typer.Option("--metrics", metavar="FILE", help="With --follow: a .prom file for node-exporter's textfiles."),
]
UnitDir = Annotated[
    str | None,
    typer.Option("--unit-dir", metavar="DIR", help="Where the unit lies, where that is not /etc/systemd/system."),
]
Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Save the report as one self-contained page, too.")
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


@app.callback(invoke_without_command=False)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    """From a XenServer / XCP-ng storage log to repaired, re-validated, undoable VHD disks."""
    if version:
        _emit(f"smfix {__version__}\n")
        raise typer.Exit


# --------------------------------------------------------------------------- one way out


def _guarded(body: Callable[..., int]) -> Callable[..., int]:
    """`body`, with every exception turned into one line on stderr and an exit code."""

    @functools.wraps(body)
    def guarded(*args: Any, **options: Any) -> int:
        try:
            return body(*args, **options)
        except SmfixError as error:
            return _ended(str(error), error.exit_bit, options)
        except KeyboardInterrupt:
            why = "interrupted; `smfix journal` lists what was changed, the next run recovers what is unfinished"
            return _ended(why, Exit.INTERRUPTED, options)
        except Exception as error:  # noqa: BLE001 - the promise is: never a traceback
            return _ended(_unexpected(error), Exit.FAILED, options)

    return guarded


def _ended(why: str, bits: Exit, options: Mapping[str, Any]) -> int:
    """Say why a command could not do its work, in both forms; the exit code."""
    if options.get("as_json"):
        with suppress(WriteFailed):
            _emit(jsondoc.dumps(jsondoc.error(why, bits)))
    _say(f"smfix: {why}")
    return int(bits)


def _unexpected(error: Exception) -> str:
    if os.environ.get("SMFIX_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug: please report it with "
        "what SMFIX_DEBUG=1 prints before this line"
    )


def _say(line: str) -> None:
    """One line on stderr; whatever came with it from a log or an image cannot act there."""
    try:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens


def _emit(report: str) -> None:
    """`report` on stdout. A reader that has gone away (``| head``) is no error of ours.

    Raises WriteFailed where stdout takes nothing (a full disk).
    """
    try:
        sys.stdout.write(report)
        sys.stdout.flush()
    except OSError as error:
        _give_up_stdout()
        if isinstance(error, BrokenPipeError):
            return
        raise WriteFailed(
            f"cannot write the report to standard output: {error.strerror}; `smfix journal` lists what was changed"
        ) from error


def _give_up_stdout() -> None:
    """What is still buffered would be tried again when Python ends, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        _give_up_stdout()
        _say(f"smfix: cannot write to standard output: {error.strerror}")
        return int(Exit.FAILED)
    code = code or 0
    return int(Exit.INTERRUPTED) if code == _SHIELDED else int(code)


def _usage(error: BaseException) -> int:
    context = getattr(error, "ctx", None)
    where = "smfix" if context is None else context.command_path
    words = error.format_message() if hasattr(error, "format_message") else str(error)
    if words.startswith("Usage:"):  # no command at all: typer's message is the whole help
        for line in words.splitlines():
            _say(line)
    else:
        _say(f"smfix: {words} See `{where} --help`.")
    return int(Exit.USAGE)


# --------------------------------------------------------------------------- what is shared


def _setting(
    sr_mount: list[str] | None,
    journal_dir: str | None,
    lock_dir: str | None,
    confirm: list[str] | None,
    decide: pipeline.Decide | None,
) -> pipeline.Setting:
    return pipeline.Setting(
        sr_mounts=tuple(sr_mount or ()),
        journal_dir=journal_dir,
        lock_dir=lock_dir,
        consent=pipeline.consent(confirm or ()),
        decide=decide,
        words=tuple(sys.argv),
    )


@contextmanager
def _with_pool(setting: pipeline.Setting, login: str | None, *, rescan: bool = True) -> Iterator[pipeline.Setting]:
    """The setting with the pool's XAPI, where there is one; its session is ended behind the block."""
    pool = pipeline.pool_at(login)
    try:
        yield replace(setting, pool=pool, xapi_login=login, rescan=rescan)
    finally:
        if pool is not None:
            pool.close()


def _decide(*, yes: bool, dry_run: bool, as_json: bool) -> pipeline.Decide | None:
    """Who says yes to a plan; None: nobody, a dry run."""
    if yes and dry_run:
        raise UsageError("--yes and --dry-run contradict each other")
    if yes:
        return lambda _path, _outcome: True
    if dry_run or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return _ask


def _ask(path: str, outcome: Outcome) -> bool:
    """Show the plan, ask; anything but yes is no."""
    _redraw("")
    _emit("\n" + text.proposal(path, outcome) + "\n")
    return _answer("   Write this? [y/N] ")


def _answer(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _agree(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[Record], bool] | None:
    """As :func:`_decide`, for an undo."""
    decide = _decide(yes=yes, dry_run=dry_run, as_json=as_json)
    if decide is not _ask:
        return None if decide is None else lambda _record: True
    return _ask_back


def _ask_back(record: Record) -> bool:
    _emit("\n" + journals.proposal(record) + "\n")
    return _answer("   Put it back? [y/N] ")


class _Meter:
    """How far a work is, for somebody who watches: one line on stderr, ten times a second at most."""

    def __init__(self, say: Callable[[int, int, float], str]) -> None:
        self._say, self._last = say, 0.0
        self._begun: float | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        if sys.stderr.isatty() and (now - self._last >= 0.1 or done >= total > 0):
            self._last = now
            _redraw("smfix: " + self._say(done, total, now - self._begun) if done < total or not total else "")


def _reading() -> _Meter:
    return _Meter(lambda done, total, seconds: meter.of_bytes("reading the log", done, total, seconds))


def _counting(what: str, noun: str) -> _Meter:
    return _Meter(lambda done, total, seconds: meter.of_items(what, done, total, seconds, noun))


def _redraw(line: str) -> None:
    """The progress line, in place of the one before it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()


def _how_to_go_on(setting: pipeline.Setting, planned: int, words: Sequence[str]) -> str:
    """What a dry run says at its end; empty where there was nothing to write."""
    if setting.decide is not None or not planned:
        return ""
    again = setting.command(*words, "--yes")
    return (
        f"Nothing was changed: a dry run. {layout.counted(planned, 'image')} would be repaired by\n"
        f"{layout.INDENT}{again}"
    )


def _save(page: pages.Wanted | None, document: dict[str, Any], draw: Callable[[ModuleType], str]) -> None:
    """Save the page, where one is wanted. What is done is done: that it cannot be saved is one bit more."""
    if page is None:
        return
    from smfix import pages

    try:
        pages.save(page, draw(pages))
    except SmfixError as error:
        _say(f"smfix: {error}")
        document["exit"] |= int(error.exit_bit)
    except Exception as error:  # noqa: BLE001 - the report itself is still to be printed
        _say(f"smfix: {_unexpected(error)}")
        document["exit"] |= int(Exit.FAILED)
    else:
        _say(f"smfix: the page is {page.file}")


def _page(html: str | None, *, include_data: bool) -> pages.Wanted | None:
    """The page that is wanted, before anything is done."""
    if html is None and not include_data:
        return None
    from smfix import pages

    return pages.wanted(html, include_data=include_data)


def _finish(report: str, document: dict[str, Any], hint: str, *, as_json: bool) -> int:
    """Print the report or the document; the exit code stands in the document either way."""
    if as_json:
        _emit(jsondoc.dumps(document))
        for line in hint.splitlines():
            _say(line)
    else:
        _emit(report + (f"\n\n{hint}\n" if hint else "\n"))
    return int(document["exit"])


# --------------------------------------------------------------------------- the commands


@app.command("from-log", epilog=EPILOG, short_help="read SMlog; find, repair and re-validate the disks it names")
@_guarded
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
    xapi_login: XapiLogin = None,
    no_rescan: NoRescan = False,
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
    as_json: AsJson = False,
) -> int:
    """Read SMlog, find each damaged VHD, plan, repair, re-validate, report.

    Without --yes on a terminal each plan is shown and asked about; elsewhere nothing is changed.
    """
    if follow and html is not None:
        raise UsageError("--follow has no end, so it has no report to save with --html")
    if follow:
        from smfix import live

        options = live.FollowOptions(
            tuple(logs or (pipeline.SMLOG,)), yes, dry_run, as_json, since, until, tz, year, policy, state_dir, metrics
        )
        setting = _setting(sr_mount, journal_dir, sm_lock_dir, confirm, None)
        with _with_pool(setting, xapi_login, rescan=not no_rescan) as setting:
            return live.follow(options, setting, sys.stdout, _say)
    if not (policy is state_dir is metrics is None):
        raise UsageError("--policy, --state-dir and --metrics go with --follow")
    page = _page(html, include_data=include_data)
    decide = _decide(yes=yes, dry_run=dry_run, as_json=as_json)
    setting = _setting(sr_mount, journal_dir, sm_lock_dir, confirm, decide)
    names = tuple(logs or (pipeline.SMLOG,))
    if not logs and not os.path.lexists(pipeline.SMLOG):
        raise Unreadable(f"{pipeline.SMLOG}: No such file or directory; name the log: smfix from-log FILE")
    asked = pipeline.LogQuestion(names, tz=tz, year=year, since=since, until=until)
    with _with_pool(setting, xapi_login, rescan=not no_rescan) as setting:
        try:
            disks = _counting("looking at the disks", "disk")
            reading, incidents = pipeline.from_log(asked, setting, _reading(), disks)
        finally:
            _redraw("")
        rescans = pipeline.rescan([(one.sr, one.outcome) for one in incidents], setting)
    outcomes = [one.outcome for one in incidents if one.outcome is not None]
    hint = _how_to_go_on(setting, pipeline.planned(outcomes), ["from-log", *asked.words()])
    report = text.from_log(reading, incidents, rescans)
    document = jsondoc.from_log(reading, incidents, rescans)
    _save(page, document, lambda pages: pages.from_log(page, reading, incidents, rescans, setting))
    return _finish(report, document, hint, as_json=as_json)


@app.command(epilog=EPILOG, short_help="the verdict on each image; reads only")
@_guarded
def check(
    targets: Targets,
    *,
    parents: Annotated[bool, typer.Option("--parents", help="Walk the chain upwards.")] = False,
    sr_mount: SrMount = None,
    xapi_login: XapiLogin = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Say of each image whether it is sound, and what is wrong with it. Reads only."""
    page = _page(html, include_data=include_data)
    setting = _setting(sr_mount, None, None, None, None)
    with _with_pool(setting, xapi_login) as setting:
        images = pipeline.check(targets, setting, parents=parents)
    document = jsondoc.check(images)
    _save(page, document, lambda pages: pages.check(page, images, setting))
    hint = ""
    if not as_json and any(image.verdict is Verdict.INVALID for image in images):
        again = setting.command("repair", *map(operand, targets), "--dry-run")
        hint = f"What a repair would write, and who must agree to it:\n{layout.INDENT}{again}"
    return _finish(text.check(images), document, hint, as_json=as_json)


@app.command(epilog=EPILOG, short_help="diagnose, plan, repair and re-validate the named images")
@_guarded
def repair(  # noqa: PLR0913 - the options of the contract
    targets: Targets,
    *,
    sr_mount: SrMount = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    journal_dir: JournalDir = None,
    sm_lock_dir: LockDir = None,
    xapi_login: XapiLogin = None,
    no_rescan: NoRescan = False,
    size: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="The size of the guest's disk, where both footers are lost (VHD106)."),
    ] = None,
    uuid: Annotated[
        str | None,
        typer.Option(metavar="UUID", help="The footer's UUID, where both footers are lost (VHD106)."),
    ] = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Diagnose, plan, repair and re-validate the named images.

    Without --yes on a terminal each plan is shown and asked about; elsewhere nothing is changed.
    """
    page = _page(html, include_data=include_data)
    decide = _decide(yes=yes, dry_run=dry_run, as_json=as_json)
    setting = replace(
        _setting(sr_mount, journal_dir, sm_lock_dir, confirm, decide),
        given_size=size,
        given_uuid=pipeline.given_uuid(uuid),
    )
    with _with_pool(setting, xapi_login, rescan=not no_rescan) as setting:
        try:
            images = pipeline.repair(targets, setting, _counting("looking at the disks", "disk"))
        finally:
            _redraw("")
        rescans = pipeline.rescan([(one.sr, one.outcome) for one in images], setting)
    planned = pipeline.planned([image.outcome for image in images])
    hint = _how_to_go_on(setting, planned, ["repair", *map(operand, targets)])
    document = jsondoc.repair(images, rescans)
    _save(page, document, lambda pages: pages.repair(page, images, rescans, setting))
    return _finish(text.repair(images, rescans), document, hint, as_json=as_json)


@app.command("scan", epilog=EPILOG, short_help="every VHD of an SR: verdict, sizes, chains")
@_guarded
def scan_(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SR-OR-FOLDER]...", help="An SR's UUID, a folder, or images. Default: every SR."),
    ] = None,
    *,
    sr_mount: SrMount = None,
    xapi_login: XapiLogin = None,
    html: Html = None,
    include_data: IncludeData = False,
    as_json: AsJson = False,
) -> int:
    """Say of every VHD of an SR whether it is sound, and draw the chains. Reads only."""
    page = _page(html, include_data=include_data)
    try:
        with _with_pool(_setting(sr_mount, None, None, None, None), xapi_login) as setting:
            images = scan.scan(targets or (), sr_mount or (), _counting("scanning", "image"), setting.pool)
    finally:
        _redraw("")
    report = "" if as_json else scanned.text(images)
    document = scanned.document(images)
    _save(page, document, lambda pages: pages.of_scan(page, images, setting))
    return _finish(report, document, "", as_json=as_json)


@app.command(epilog=EPILOG, short_help="metadata as `vhd-util read -p` prints it")
@_guarded
def show(
    target: Target,
    *,
    hex_dump: Annotated[bool, typer.Option("--hex", help="Both footers, as `hexdump -C` prints them.")] = False,
    file_layout: Annotated[
        bool, typer.Option("--layout", help="A picture of the file: what lies where, and where its footer belongs.")
    ] = False,
    sr_mount: SrMount = None,
    as_json: AsJson = False,
) -> int:
    """Print an image's metadata in the layout of `vhd-util read -p`."""
    path, image = pipeline.show(target, _setting(sr_mount, None, None, None, None))
    if file_layout and not as_json:
        _emit(picture.text(picture.picture(image), path, _width()) + ("\n\n" if hex_dump else "\n"))
    if hex_dump and not as_json:
        parts = [f"{title}\n{hexdump(raw, offset)}" for title, offset, raw in metadata.footers(image)]
        _emit("\n".join(parts))
    if (hex_dump or file_layout) and not as_json:
        return 0
    for note in metadata.notes(image):
        _say(f"smfix: {note}")
    _emit(jsondoc.dumps(jsondoc.show(path, image)) if as_json else metadata.metadata(image, path))
    return 0


def _width() -> int:
    """Columns of the terminal, within reason; 80 where there is none."""
    if not sys.stdout.isatty():
        return layout.WIDTH
    return min(max(os.get_terminal_size().columns, 40), 200)


@app.command(epilog=EPILOG, short_help="what was changed on this machine")
@_guarded
def journal(
    journal_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A journal's id, or the start of it.")
    ] = None,
    *,
    journal_dir: JournalDir = None,
    as_json: AsJson = False,
) -> int:
    """List what smfix has changed on this machine, or show one change byte by byte."""
    setting = _setting(None, journal_dir, None, None, None)
    entries = pipeline.journals(setting, journal_id)
    report = journals.listing(entries) if journal_id is None else journals.detail(entries[0])
    return _finish(report, jsondoc.journal(entries), "", as_json=as_json)


@app.command(epilog=EPILOG, short_help="put an image back as it was before a repair")
@_guarded
def undo(
    journal_id: Annotated[str, typer.Argument(metavar="ID", help="A journal's id, or the start of it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Put it back without asking.")] = False,
    dry_run: DryRun = False,
    journal_dir: JournalDir = None,
    sm_lock_dir: LockDir = None,
    xapi_login: XapiLogin = None,
    as_json: AsJson = False,
) -> int:
    """Put an image back as it was before a repair, byte for byte.

    Refused where the disk has been written to since: what is on it now would be lost.
    """
    setting = _setting(None, journal_dir, sm_lock_dir, None, None)
    with _with_pool(setting, xapi_login) as setting:
        image = pipeline.undo(journal_id, setting, _agree(yes=yes, dry_run=dry_run, as_json=as_json))
    document = jsondoc.undo(image, exitcode.of_undo(image.outcome))
    return _finish(journals.undone(image), document, "", as_json=as_json)


@app.command("explain", epilog=EPILOG, short_help="what a finding means and what is done about it")
@_guarded
def explain_(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="A finding, VHD101 for example.")] = None,
    *,
    as_json: AsJson = False,
) -> int:
    """Say what a finding means, why it happens, and what smfix does about it."""
    rows = explain.rows(code)
    document = explain.document(rows)
    report = explain.listing(rows) if code is None else explain.full(rows[0])
    return _finish(report, document, "", as_json=as_json)


@app.command(epilog=EPILOG, short_help="what the followers of this host's logs know, and what waits")
@_guarded
def status(*, state_dir: StateDir = None, as_json: AsJson = False) -> int:
    """Say how each followed log stands: its incidents, how far each has come, and what it waits for."""
    from smfix import live
    from smfix.report import followed

    followers, code = live.status(state_dir)
    return _finish(followed.table(followers), followed.status(followers, code), "", as_json=as_json)


service = typer.Typer(
    name="service", help="Run `from-log --follow` as a service of systemd.", no_args_is_help=True, epilog=EPILOG
)
app.add_typer(service, short_help="run `from-log --follow` as a service of systemd")


@service.command("install", epilog=EPILOG)
@_guarded
def service_install(
    *,
    log: Annotated[str, typer.Argument(metavar="[LOG]", help="The log to follow.")] = pipeline.SMLOG,
    policy: Policy = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply every SAFE repair; else report only.")] = False,
    metrics: Metrics = None,
    sr_mount: SrMount = None,
    unit_dir: UnitDir = None,
) -> int:
    """Write the unit, enable and start it. Without --yes and --policy it reports and repairs nothing."""
    from smfix import live
    from smfix import service as systemd

    if policy is not None:
        live.read_policy(policy)  # a mistake is told now, not by the service
    options = systemd.options(log, policy=policy, yes=yes, metrics=metrics, sr_mounts=sr_mount or ())
    writable = [] if metrics is None else [os.path.dirname(os.path.abspath(metrics))]
    systemd.install(systemd.unit_text(systemd.program(), options, writable), unit_dir, _say)
    return 0


@service.command("uninstall", epilog=EPILOG)
@_guarded
def service_uninstall(*, unit_dir: UnitDir = None) -> int:
    """Stop the service and take its unit away; journals and state stay."""
    from smfix import service as systemd

    systemd.uninstall(unit_dir, _say)
    return 0


@service.command("status", epilog=EPILOG)
@_guarded
def service_status(*, unit_dir: UnitDir = None) -> int:
    """Say whether the unit is there, enabled and running; 0 when it is installed and runs."""
    from smfix import service as systemd

    found = systemd.state(unit_dir)
    _emit(systemd.words(found) + "\n")
    return 0 if found.installed and found.active in (None, "active") else 4


@app.command(epilog=EPILOG, short_help="a throw-away SR with damaged disks, repaired and proved")
@_guarded
def demo(
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="DIR", help="Build it in DIR and leave it there."),
    ] = None,
) -> int:
    """Build a throw-away SR with damaged disks and their log, repair it, prove the guest data.

    Needs no root, no XenServer, no network.
    """
    from smfix.demo import run as play

    return int(play(keep, lambda piece: _emit(piece + "\n")))
