"""Which modules are pure, and the gate that holds them at 100 % branch coverage.

Every module of smfix stands in one of the two lists (test_architecture.py sees to it). A name in ACTS
is an exception from a pattern in PURE.
Run as a program after the tests: ``python tests/purity.py`` reads ``.coverage``.
"""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Functions from values to values: no file, clock, process or terminal.
PURE = (
    "smfix.model",
    "smfix.errors",
    "smfix.patterns",
    "smfix.policy",
    "smfix.lifecycle",
    "smfix.ledger",
    "smfix.cases",
    "smfix.vhd",
    "smfix.vhd.*",
    "smfix.problems",
    "smfix.problems.*",
    "smfix.host.naming",
    "smfix.host.pool",
    "smfix.host.elsewhere",
    "smfix.repair",
    "smfix.repair.plan",
    "smfix.repair.overlay",
    "smfix.repair.proof",
    "smfix.repair.fingerprint",
    "smfix.repair.journal",
    "smfix.repair.keeping",
    "smfix.repair.reach_digest",
    "smfix.repair.standing",
    "smfix.smlog",
    "smfix.smlog.*",
    "smfix.report",
    "smfix.report.*",
    "smfix.fleet",
    "smfix.fleet.*",
)
# What touches the machine, or puts together what does.
ACTS = (
    "smfix",
    "smfix.__main__",
    "smfix.cli",
    "smfix.cli.*",
    "smfix.pipeline",
    "smfix.pruning",
    "smfix.targets",
    "smfix.checking",
    "smfix.undoing",
    "smfix.chains",
    "smfix.pages",
    "smfix.reach",
    "smfix.readers",
    "smfix.rescan",
    "smfix.scan",
    "smfix.setting",
    "smfix.treatment",
    "smfix.remedy",
    "smfix.fleet.piles",
    "smfix.fleet.reading",
    "smfix.follow",
    "smfix.live",
    "smfix.service",
    "smfix.demo",
    "smfix.demo.*",
    "smfix.host",
    "smfix.host.activation",
    "smfix.host.aliases",
    "smfix.host.answers",
    "smfix.host.atomic_file",
    "smfix.host.errand",
    "smfix.host.fileid",
    "smfix.host.forked",
    "smfix.host.gc_lock",
    "smfix.host.guard",
    "smfix.host.hooks",
    "smfix.host.locks",
    "smfix.host.lvm",
    "smfix.host.mounts",
    "smfix.host.packed",
    "smfix.host.paths",
    "smfix.host.pending",
    "smfix.host.programs",
    "smfix.host.notify",
    "smfix.host.slow",
    "smfix.host.sr",
    "smfix.host.state_file",
    "smfix.host.storage",
    "smfix.host.tapdisks",
    "smfix.host.usage",
    "smfix.host.vhd_util",
    "smfix.host.wake",
    "smfix.host.xapi",
    "smfix.host.xapi_login",
    "smfix.host.xapi_transport",
    "smfix.report.html",
    "smfix.repair.apply",
    "smfix.repair.journal_folder",
    "smfix.repair.recovery",
    "smfix.repair.undo",
    "smfix.smlog.archives",
    "smfix.smlog.beside",
    "smfix.smlog.parts",
    "smfix.smlog.follow",
    "smfix.smlog.rotated",
    "smfix.smlog.source",
    "smfix.smlog.streams",
    "smfix.smlog.unpack",
    "smfix.smlog.workers",
)


def module_name(path: Path) -> str:
    """``smfix/vhd/bat.py`` -> ``smfix.vhd.bat``; a package's ``__init__`` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Every module of smfix, by name."""
    return {module_name(path): path for path in sorted((ROOT / "smfix").rglob("*.py"))}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """True when `name` is one of `patterns` (``*`` stands for any rest)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_pure(name: str) -> bool:
    """True for a module of PURE that is no exception from it."""
    return matches(name, PURE) and not matches(name, ACTS)


def pure_modules() -> dict[str, Path]:
    """The pure ones among them."""
    return {name: path for name, path in modules().items() if is_pure(name)}


def main() -> int:
    """Report the coverage of the pure modules; 0 when every line and branch of them was run."""
    paths = ",".join(str(path.relative_to(ROOT)) for path in pure_modules().values())
    print("coverage gate: pure modules, lines and branches, 100 %")
    return subprocess.call(
        [sys.executable, "-m", "coverage", "report", f"--include={paths}", "--fail-under=100"],
        cwd=ROOT,
    )


if __name__ == "__main__":
    sys.exit(main())
