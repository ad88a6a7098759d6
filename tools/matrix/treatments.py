"""The treatments that the matrix compares: smfix, and what engineers use today."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from matrix.damage import seal_footer
from matrix.reader import SECTOR, footer_is_sound
from smfix.formats.vhd.problems.registry import PROBLEMS
from smfix.host import open_files
from smfix.usecases.check import check as check_images
from smfix.usecases.journal import undo as undo_journal
from smfix.usecases.repair import repair as repair_images
from smfix.usecases.run_options import RunOptions
from smfix.values import Outcome

# The wiki's repair, line by line ("Corrupt Truncated VHD Repair"); $fn is the image.
SEED = """
DATA=$(wc -c $fn | awk '{print (512-($1 % 512))%512}');
if [ "$DATA" -ne "0" ]; then for i in $(eval echo {1..$DATA}); do echo -n '0' >> $fn; done; fi;
head -c 512 $fn >> $fn;
vhd-util repair -n $fn;
"""
PEERS = {
    "seed": ["bash", "-c", SEED],
    "repair": ["bash", "-c", "vhd-util repair -n $fn"],
    "repair -b": ["bash", "-c", "vhd-util repair -b -n $fn"],
}
TIME_LIMIT = 60
EVERY_CODE = frozenset(problem.code for problem in PROBLEMS)


def preloaded() -> dict[str, str]:
    """The environment for vhd-util: SMFIX_MATRIX_PRELOAD names a library whose sleep() returns at once."""
    stub = os.environ.get("SMFIX_MATRIX_PRELOAD")
    return dict(os.environ) | ({"LD_PRELOAD": stub} if stub else {})


def alone() -> None:
    """Do not ask every process of this machine, thousands of times, whether it has a disk of the matrix open."""
    open_files._ask_processes = lambda _wanted, _held, _proc: None


@dataclass(frozen=True)
class Opinion:
    """What ``vhd-util check`` says: its exit code (128 + n: ended by signal n) and its first line."""

    code: int
    line: str

    @property
    def is_valid(self) -> bool:
        return self.code == 0


def vhd_util_check(path: Path, *options: str) -> Opinion:
    """Plain ``vhd-util check``; the image's path is left out of what it says."""
    done = subprocess.run(
        ["vhd-util", "check", *options, "-n", str(path)],
        capture_output=True, check=False, env=preloaded(), timeout=TIME_LIMIT,
    )  # fmt: skip
    said = done.stdout.decode("utf-8", "replace").replace(f"{path.parent}/", "").splitlines()
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Opinion(code, said[0].replace(path.name, "IMAGE") if said else "")


def check_less_geometry(path: Path) -> Opinion:
    """What ``vhd-util check`` would say if it did not mind a healthy qemu disk's geometry (docs/adr/0008, VHD904).

    The footers' geometry is set to 0 for the time of the check and then put back.
    """
    opinion = vhd_util_check(path)
    if "geometry too large" not in opinion.line:
        return opinion
    size = path.stat().st_size
    with path.open("r+b") as file:
        kept = [(at, os.pread(file.fileno(), SECTOR, at)) for at in (0, size - (SECTOR - (size % SECTOR > 0)))]
        for at, raw in kept:
            if footer_is_sound(raw):
                patched = seal_footer(raw[:56] + bytes(4) + raw[60:].ljust(SECTOR - 60, b"\0"))
                os.pwrite(file.fileno(), patched[: len(raw)], at)
        try:
            return vhd_util_check(path)
        finally:
            for at, raw in kept:
                os.pwrite(file.fileno(), raw, at)


def peer(name: str, path: Path) -> int:
    """Let one of today's tools at the image; its exit code."""
    done = subprocess.run(
        PEERS[name], capture_output=True, check=False, env=preloaded() | {"fn": str(path)}, timeout=TIME_LIMIT
    )
    return done.returncode


@dataclass
class Treated:
    """What smfix did: its outcome, the guest sectors it named as lost, whether undo gave the damaged bytes back."""

    outcome: Outcome
    named: set[int] = field(default_factory=set)


def smfix(path: Path, journals: Path, *, consent: bool) -> Treated:
    """``smfix repair --yes`` through its pipeline; `consent`: with ``--confirm`` of every code there is."""
    run_options = _run_options(journals, consent=consent)
    (image,) = repair_images([str(path)], run_options)
    lost = image.outcome.plan.lost if image.outcome.plan is not None and image.outcome.journal else ()
    named = {s for extent in lost for s in range(extent.offset // SECTOR, -(-extent.end // SECTOR))}
    return Treated(image.outcome, named)


def undo(path: Path, journals: Path, journal: str, damaged: bytes) -> bool:
    """``smfix undo --yes``: True when the image is again what it was, byte for byte."""
    undo_journal(journal, _run_options(journals, consent=False), lambda _record: True)
    return path.stat().st_size == len(damaged) and path.read_bytes() == damaged


def verdict(path: Path, journals: Path) -> tuple[str, list[str]]:
    """``smfix check``: the verdict and the codes of the errors."""
    (image,) = check_images([str(path)], _run_options(journals, consent=False))
    return image.verdict.value, [f.code for f in image.findings if f.severity.value == "error"]


def _run_options(journals: Path, *, consent: bool) -> RunOptions:
    return RunOptions(
        journal_dir=str(journals),
        consent=EVERY_CODE if consent else frozenset(),
        decide=lambda _path, _outcome: True,
    )


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
