"""One case of the matrix: a base, a kind of damage, and every treatment of it, measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from matrix import treatments
from matrix.bases import Base
from matrix.damage import Damaged, Kind, Sample
from matrix.measure import Judge, Measured
from matrix.treatments import Opinion

EXCUSED = ("creation time in future", "batmap is invalid: invalid batmap size")
"""Complaints of ``vhd-util check`` that are no damage (VHD902, VHD905; the geometry's, VHD904, is looked past)."""
CLAIMS = ("repaired", "valid")


@dataclass
class Result:
    """What one treatment came to. Counts are of 512-byte sectors.

    `unnamed` are the wrong ones that were not named as lost. `warned` are the codes of warnings that come with
    the claim: somebody was told that this image may not read right.
    """

    claim: str
    reason: str | None
    message: str
    check: str
    opens: bool
    wrong: int
    unnamed: int
    lost: int
    beyond: int
    shrunk: bool
    size: int
    named: int = 0
    warned: list[str] = field(default_factory=list)
    undone: bool | None = None
    twice: str | None = None
    codes: list[str] = field(default_factory=list)

    @property
    def check_ok(self) -> bool:
        return self.check == "valid"

    @property
    def excused(self) -> bool:
        """The complaint is one that an ADR calls no damage."""
        return any(words in self.check for words in EXCUSED)

    @property
    def mended(self) -> bool:
        """Made valid, reading right: but for what was named as lost."""
        return (self.check_ok or self.excused) and self.unnamed == 0


@dataclass
class Case:
    """One base with one kind of damage."""

    base: str
    kind: str
    silent: str | None
    before: str
    verdict: str
    codes: list[str]
    opened: bool
    wrong: int
    size: int
    results: dict[str, Result]

    @property
    def fails(self) -> bool:
        """Plain ``vhd-util check`` fails on it, and not for what is no damage."""
        return self.before != "valid" and not any(words in self.before for words in EXCUSED)


def run_case(base: Base, kind: Kind, work: Path, *, peers: bool = True, tool: bool = True) -> Case | None:
    """Damage, measure, treat. `work` has the base's relatives; None: nothing to damage."""
    sample = Sample(base.name, base.image.read_bytes())
    damaged = kind.damage(sample)
    if damaged is None:
        return None
    return treat(base, kind.name, sample, base.truth, damaged, work, peers=peers, tool=tool)


def treat(
    base: Base,
    name: str,
    sample: Sample,
    truth: bytes,
    damaged: Damaged,
    work: Path,
    *,
    peers: bool = True,
    tool: bool = True,
) -> Case:
    """Measure one damaged image, give it to every treatment, measure again. `truth` is what `sample`'s guest reads."""
    path, journals = work / base.image.name, work.parent / "journals"
    judge = Judge(sample, truth, base.parent_truth, damaged)
    overwrite(path, damaged.raw)
    before = _said(path, tool=tool)
    seen, codes = treatments.verdict(path, journals)
    results = {}
    for treatment, consent in (("safe", False), ("consent", True)):
        treatments.fresh(journals)
        overwrite(path, damaged.raw)
        treated = treatments.smfix(path, journals, consent=consent)
        outcome = treated.outcome
        got = judge.measure(path)
        result = _result(got, treated.named, _said(path, tool=tool), len(damaged.raw))
        result.claim, result.message = outcome.status.value, outcome.message
        result.reason = outcome.reason.value if outcome.reason else None
        told = (*outcome.findings, *outcome.remaining)
        result.warned = sorted({f.code for f in told if f.severity.value == "warning"})
        result.codes = sorted({f.code for f in outcome.findings if f.severity.value == "error"})
        if outcome.journal is not None:
            second = treatments.smfix(path, journals, consent=consent).outcome
            result.twice = "wrote" if second.journal is not None else second.status.value
            result.undone = treatments.undo(path, journals, outcome.journal, damaged.raw)
        elif path.read_bytes() != damaged.raw:
            result.undone = False
        results[treatment] = result
    if peers and before != "valid":
        for treatment in treatments.PEERS:
            overwrite(path, damaged.raw)
            code = treatments.peer(treatment, path)
            result = _result(judge.measure(path), set(), _said(path, tool=tool), len(damaged.raw))
            result.claim = "repaired" if code == 0 else f"exit {code}"
            results[treatment] = result
    path.unlink()
    return Case(
        base.name, name, damaged.silent, before, seen, codes, judge.opened_before, len(judge.wrong_before),
        len(damaged.raw), results,
    )  # fmt: skip


def _said(path: Path, *, tool: bool) -> str:
    """The word valid, or the first line of the complaint; without the tool nothing is known: valid."""
    opinion = treatments.check_less_geometry(path) if tool else Opinion(0, "")
    return "valid" if opinion.is_valid else opinion.line or f"exit {opinion.code}"


def _result(got: Measured, named: set[int], check: str, size: int) -> Result:
    return Result(
        claim="", reason=None, message="", check=check, opens=got.opens, wrong=len(got.wrong),
        unnamed=len(got.wrong - named), lost=got.lost, beyond=got.beyond, shrunk=got.size < size, size=got.size,
        named=len(named),
    )  # fmt: skip


def overwrite(path: Path, raw: bytes) -> None:
    """Write the file in place: its memory is used again."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(raw)
        file.truncate()


def place(base: Base, work: Path) -> Path:
    """A folder with the base's relatives (links: nothing may write to them), ready for its cases."""
    treatments.fresh(work)
    for path in base.relatives:
        os.link(path, work / path.name)
    return work
