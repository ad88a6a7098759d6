"""`smfix demo`: a throw-away SR with damaged disks and their log, repaired by the real pipeline.

Everything is real but the host: the images are laid out as ``vhd-util`` does it, one of them is held
open read-write by a process of its own, and what the report says is then proved against what the
guests wrote. Needs no root, no XenServer, no network. Each claim is a line that is `ok` or `FAILED`,
and the exit code is 0 only when every one of them is ok.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from smfix.demo.disks import BLOCK_SIZE, DISKS, FORMAT, GUEST_SIZE, SR, Disk
from smfix.demo.traffic import logged_path, smlog
from smfix.errors import Unreadable, UsageError, WriteFailed
from smfix.formats.base import Image
from smfix.host import atomic_file
from smfix.host.image_file import OpenImage, open_image
from smfix.report import journals, text
from smfix.report.escape import command, printable
from smfix.report.layout import INDENT, counted, wrapped
from smfix.report.next_steps import command_line
from smfix.usecases import external_check, from_log
from smfix.usecases.check import check
from smfix.usecases.journal import undo
from smfix.usecases.run_options import Decide, RunOptions
from smfix.values import Backing, Exit, Extent, Outcome, Refusal, Status, StepKind, Target, TreatedIncident, Verdict

UNDONE = DISKS[2]
"""The disk whose repair is undone at the end."""
_CHUNK = 1 << 16
_LOG = atomic_file.FileKind("a log of the demo", lambda _head: False)


@dataclass(slots=True)
class Stage:
    """The folder of the demo, and the claims so far. `before`: each disk's bytes at the beginning."""

    folder: str
    say: Callable[[str], None]
    before: dict[str, bytes] = field(default_factory=dict)
    claims: list[bool] = field(default_factory=list)

    @property
    def mount(self) -> str:
        """The folder in which the SR is mounted."""
        return os.path.join(self.folder, "sr-mount")

    @property
    def log(self) -> str:
        """The storage manager's log."""
        return os.path.join(self.folder, "SMlog")

    def path(self, disk: Disk) -> str:
        """The disk's file."""
        return os.path.join(self.mount, SR, disk.name)

    def content(self, disk: Disk) -> bytes:
        """The disk's bytes as they are now."""
        with open(self.path(disk), "rb") as file:
            return file.read()

    def claim(self, what: str, *, holds: bool) -> None:
        """Record and print a claim."""
        self.claims.append(holds)
        self.say(f"   {'ok    ' if holds else 'FAILED'}   {printable(what)}")

    def run_options(self, decide: Decide | None) -> RunOptions:
        """The options of every run: nothing outside the folder is written."""
        return RunOptions(
            sr_mounts=(self.mount,),
            journal_dir=os.path.join(self.folder, "journal"),
            state_dir=os.path.join(self.folder, "state"),
            decide=decide,
            words=("smfix", "demo"),
        )


def run(keep: str | None, say: Callable[[str], None]) -> Exit:
    """Run the demo; `keep`: a folder to build it in and leave there. `say` takes one piece of text.

    Raises UsageError if `keep` is not empty, WriteFailed if the demo cannot be built.
    """
    try:
        with _folder(keep) as folder:
            stage = Stage(folder, say)
            _play(stage)
    except OSError as error:
        raise WriteFailed(f"the demo cannot be built: {error.strerror} ({error.filename})") from error
    say(_sum_up(stage, kept=keep is not None))
    return Exit.CLEAN if all(stage.claims) else Exit.FAILED


def _sum_up(stage: Stage, *, kept: bool) -> str:
    """Say how many claims hold, which files are left, and what to type next."""
    done = sum(stage.claims)
    words = f"{done} of {counted(len(stage.claims), 'claim')} proved."
    if done < len(stage.claims):
        words += " The others FAILED: please report that with this output."
    if kept:
        again = command_line(stage.run_options(None).step(StepKind.READ_LOGS, stage.log, options=["--dry-run"]))
        words += f" It is all in {stage.folder}; the disk whose repair was undone is damaged again."
        steps = [("To go on with that disk, and write nothing yet:", again)]
    else:
        words += " The disks are removed again."
        steps = [("To keep the disks, and try the commands on them:", "smfix demo --keep DIR")]
    steps += [("On a host, to see what it would do there, and change nothing:", "smfix from-log --dry-run")]
    return "\n".join(["", wrapped(words), "", *(f"{why}\n{INDENT}{printable(step)}" for why, step in steps)])


@contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="smfix-demo-") as folder:
            yield folder
        return
    os.makedirs(keep, mode=0o700, exist_ok=True)
    if os.listdir(keep):
        raise UsageError(f"--keep {keep}: the folder is not empty")
    yield os.path.abspath(keep)


def _play(stage: Stage) -> None:
    _scene(stage, f"A throw-away SR with {len(DISKS)} disks, and the log that names them")
    build(stage)
    for disk in DISKS:
        stage.say(f"   {disk.vdi[:8]}  {disk.story}")
    asked = from_log.LogQuestion((stage.log,))
    run_options = stage.run_options(lambda _path, _outcome: True)
    with ExitStack() as holders:
        for disk in DISKS:
            if disk.held:
                holders.enter_context(held_open(stage.path(disk)))
        _scene(stage, command(["smfix", "from-log", stage.log, "--sr-mount", stage.mount, "--yes"]))
        reading, incidents = from_log.from_log(asked, run_options)
        stage.say(text.from_log(reading, incidents))
        _scene(stage, "Is it true? Every guest's data against what the guest wrote, byte for byte")
        _prove(stage, incidents)
        after = {disk.vdi: (stage.content(disk), os.stat(stage.path(disk)).st_mtime_ns) for disk in DISKS}
        from_log.from_log(asked, run_options)
        again = {disk.vdi: (stage.content(disk), os.stat(stage.path(disk)).st_mtime_ns) for disk in DISKS}
        stage.claim("a second run writes nothing: bytes and times are the same", holds=after == again)
    _undo(stage, {one.vdi: one.outcome for one in incidents})


def _scene(stage: Stage, title: str) -> None:
    stage.say(f"\n== {title}\n")


# --------------------------------------------------------------------------- building


def build(stage: Stage) -> None:
    """Make the SR, its disks as their damage left them, and the log. Raises OSError."""
    dumps: dict[str, str] = {}
    for disk in DISKS:
        damaged = disk.damage(disk.made())
        stage.before[disk.vdi] = damaged
        os.makedirs(os.path.dirname(stage.path(disk)), exist_ok=True)
        _write_sparse(stage.path(disk), damaged)
        with _opened(stage.path(disk)) as image:
            dumps[disk.vdi] = FORMAT.show(FORMAT.inspect(image), image, logged_path(disk)).text
        # Another time than now, so that a write would show.
        os.utime(stage.path(disk), ns=(10**18, 10**18))
    log = smlog(dumps, datetime.now(UTC).astimezone())
    atomic_file.replace(stage.log, log.encode("ascii"), _LOG)
    stage.say(f"   {stage.log}: {log.count(chr(10)):,} lines\n")


def _write_sparse(path: str, data: bytes) -> None:
    """Write `data` as a file with holes, as a real SR's disks have them."""
    with open(path, "xb") as file:
        for at in range(0, len(data), _CHUNK):
            piece = data[at : at + _CHUNK]
            if any(piece):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))


@contextmanager
def held_open(path: str) -> Iterator[None]:
    """Let another process hold `path` open read-write while the block runs, as tapdisk does."""
    ready, started = os.pipe()
    stop, stopping = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(stopping)
            held = os.open(path, os.O_RDWR)
            os.write(started, b"x")
            os.read(stop, 1)
            os.close(held)
        finally:
            os._exit(0)
    os.close(started)
    os.close(stop)
    try:
        os.read(ready, 1)
        yield
    finally:
        os.close(stopping)
        os.close(ready)
        os.waitpid(pid, 0)


# --------------------------------------------------------------------------- proving


def _prove(stage: Stage, incidents: tuple[TreatedIncident, ...]) -> None:
    reported = {one.vdi: one for one in incidents}
    stage.claim(
        f"the log's {counted(len(DISKS), 'damaged disk')}, no more and no less, each with its path",
        holds=len(reported) == len(incidents) == len(DISKS)
        and all(disk.vdi in reported and reported[disk.vdi].path == _expected_path(stage, disk) for disk in DISKS),
    )
    for disk in DISKS:
        outcome = reported[disk.vdi].outcome if disk.vdi in reported else None
        _prove_disk(stage, disk, outcome)


def _expected_path(stage: Stage, disk: Disk) -> str:
    """A copy in a tmp folder is not looked for: the log's own path stays."""
    return logged_path(disk) if disk.folder else stage.path(disk)


def _prove_disk(stage: Stage, disk: Disk, outcome: Outcome | None) -> None:
    name = disk.vdi[:8]
    found = "missing" if outcome is None else outcome.status.value
    is_right = outcome is not None and (outcome.status, outcome.reason) == (disk.expect, disk.reason)
    wanted = disk.expect.value + (f" ({disk.reason.value})" if disk.reason else "")
    stage.claim(f"{name} is {wanted}" + ("" if is_right else f", but was {found}"), holds=is_right)
    now = stage.content(disk)
    if disk.expect is not Status.REPAIRED:
        stage.claim(f"{name} was not written to", holds=now == stage.before[disk.vdi])
        return
    same, size = guest_data_is_right(stage, disk)
    stage.claim(f"{name} reads as its guest wrote it, all {counted(size, 'byte')} of the disk", holds=same)
    stage.claim(f"{name} was not shortened", holds=len(now) >= len(stage.before[disk.vdi]))
    (checked,) = check([stage.path(disk)], stage.run_options(None))
    complaint = external_check.complaint(FORMAT.external_check(stage.path(disk)))
    both = " (vhd-util agrees)" if shutil.which("vhd-util") else ""
    stage.claim(f"{name} is a valid VHD again{both}", holds=checked.verdict is Verdict.VALID and not complaint)


def guest_data_is_right(stage: Stage, disk: Disk) -> tuple[bool, int]:
    """Return whether the whole virtual disk reads as the guest wrote it, and its size in bytes.

    A sector that an image does not hold is its parent's.
    """
    line = [disk]
    while line[-1].parent is not None:
        line.append(next(other for other in DISKS if other.vdi == line[-1].parent))
    with ExitStack() as stack:
        images = [FORMAT.inspect(stack.enter_context(_opened(stage.path(each)))) for each in line]
        blocks = range(GUEST_SIZE // BLOCK_SIZE)
        return all(_read(images, block) == _written(line, block) for block in blocks), GUEST_SIZE


def _read(images: list[Image], block: int) -> bytes:
    """Read one block of the guest disk through the chain."""
    where = Extent(block * BLOCK_SIZE, BLOCK_SIZE)
    data = bytearray(BLOCK_SIZE)
    for image in reversed(images):  # the leaf last, because its sectors replace its parent's
        for offset, sector in FORMAT.read_guest(image, where).items():
            at = offset - where.offset
            data[at : at + len(sector)] = sector
    return bytes(data)


def _written(line: list[Disk], block: int) -> bytes:
    """Return the data that the guests wrote to one block; the leaf's sectors replace its parent's."""
    data = bytearray(BLOCK_SIZE)
    for disk in reversed(line):
        for index in disk.blocks.get(block, ()):
            data[index * 512 : index * 512 + 512] = disk.guest_sector(block, index)
    return bytes(data)


def _opened(path: str) -> OpenImage:
    image = open_image(Target(path, Backing.FILE))
    if isinstance(image, Refusal):
        raise Unreadable(image.message)
    return image


# --------------------------------------------------------------------------- undoing


def _undo(stage: Stage, outcomes: dict[str, Outcome | None]) -> None:
    outcome = outcomes.get(UNDONE.vdi)
    if outcome is None or outcome.journal is None or outcome.undo is None:
        stage.claim(f"{UNDONE.vdi[:8]} has a journal to undo", holds=False)
        return
    _scene(stage, command_line(outcome.undo))
    stage.say(wrapped("The line above takes a repair back: its journal holds the bytes that were there before.") + "\n")
    run_options = stage.run_options(lambda _path, _outcome: True)
    stage.say(journals.undone(undo(outcome.journal, run_options, lambda _record: True)) + "\n")
    stage.claim(
        f"{UNDONE.vdi[:8]} is as damaged as it was, byte for byte and in its size",
        holds=stage.content(UNDONE) == stage.before[UNDONE.vdi],
    )
