"""Which modules are pure, and the gate that holds them at 100 % branch coverage.

Every module of smfix stands in one of the two lists (test_architecture.py sees to it). A name in ACTS
is an exception from a pattern in PURE.
Run as a program after the tests: ``python tools/purity.py`` reads ``.coverage``.
"""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Functions from values to values: no file, clock, process or terminal.
PURE = (
    "smfix.values",
    "smfix.errors",
    "smfix.formats*",
    "smfix.smlog*",
    "smfix.report*",
    "smfix.repair",
    "smfix.repair.*",
    "smfix.fleet*",
    "smfix.sm.paths",
    "smfix.xapi.records",
    "smfix.xapi.attach_policy",
    "smfix.usecases.durations",
    "smfix.follow.incident_state",
    "smfix.follow.policy",
    "smfix.follow.state",
    "smfix.follow.state_format",
    "smfix.follow.tracker",
)
# What touches the machine, or puts together what does.
ACTS = (
    "smfix",
    "smfix.__main__",
    "smfix.cli*",
    "smfix.demo*",
    "smfix.usecases",
    "smfix.usecases.[!d]*",
    "smfix.follow",
    "smfix.follow.commands",
    "smfix.follow.delivery",
    "smfix.follow.event_wait",
    "smfix.follow.hooks",
    "smfix.follow.loop",
    "smfix.follow.metrics",
    "smfix.follow.repairs",
    "smfix.follow.rescans",
    "smfix.follow.sd_notify",
    "smfix.follow.service",
    "smfix.follow.state_store",
    "smfix.follow.worker_thread",
    "smfix.host*",
    "smfix.sm",
    "smfix.sm.gc_lock",
    "smfix.sm.journals",
    "smfix.sm.locks",
    "smfix.sm.resolve",
    "smfix.sm.sr_types*",
    "smfix.xapi",
    "smfix.xapi.client",
    "smfix.xapi.login",
    "smfix.xapi.transport",
    "smfix.fleet.sorted_store",
    "smfix.fleet.load",
    "smfix.report.html",
    "smfix.repair.apply",
    "smfix.repair.journal_store",
    "smfix.repair.recovery",
    "smfix.repair.undo",
    "smfix.smlog.inputs.archive",
    "smfix.smlog.inputs.rotation",
    "smfix.smlog.inputs.read_ahead",
    "smfix.smlog.inputs.tail",
    "smfix.smlog.reader",
    "smfix.smlog.inputs.discover",
    "smfix.smlog.inputs.decompress",
)


def module_name(path: Path) -> str:
    """``smfix/formats/vhd/bat.py`` -> ``smfix.formats.vhd.bat``; a package's ``__init__`` is the package."""
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
