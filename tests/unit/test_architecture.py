"""The arrows and the purity of design, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from purity import ACTS, PURE, ROOT, is_pure, matches, modules, pure_modules

MODULES = modules()

# Who may import whom, by package; the arrows never turn back. `sm.paths` (the grammar of paths
# and names) and `report.escape` (text that cannot act on a terminal) are pure, and read by all.
ARROWS = {
    "values": "",
    "errors sm.paths report.escape": "values",
    "formats": "values errors sm.paths report.escape",
    "host": "values errors sm.paths report.escape",
    "smlog": "values errors sm.paths report.escape",
    "sm": "formats host values errors sm.paths report.escape",
    "xapi": "sm host values errors sm.paths report.escape",
    "repair": "formats sm xapi host values errors sm.paths report.escape",
    "report": "repair formats values errors sm.paths report.escape",
    "usecases": "report repair formats smlog sm xapi host values errors sm.paths report.escape",
    "follow": "usecases report repair formats smlog sm xapi host values errors sm.paths report.escape",
    "fleet": "report formats smlog host values errors sm.paths report.escape",
    "demo": "usecases report formats host values errors sm.paths report.escape",
    "cli": "demo fleet follow usecases report formats smlog host values errors sm.paths report.escape",
    "__main__": "cli host values errors",
}
MAY_IMPORT = {layer: set(below.split()) for layers, below in ARROWS.items() for layer in layers.split()}

TOUCHES_THE_MACHINE = {
    "asyncio", "concurrent", "ctypes", "fcntl", "getpass", "glob", "io", "locale", "logging",
    "mmap", "multiprocessing", "os", "pathlib", "platform", "random", "secrets", "select",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "typer",
}  # fmt: skip
LAZY = {"XenAPI", "dateutil", "isal", "jinja2", "rich", "typer"}
OF_THE_BUILD = {"byteorder", "maxsize", "version_info"}  # all a pure module may ask of sys
CLOCKS = {"now", "today", "utcnow", "fromtimestamp", "utcfromtimestamp"}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}


def _is_type_checking(node: ast.If) -> bool:
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _running(node: ast.AST):
    """The nodes below `node` that are executed: not what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child):
            yield from (part for other in child.orelse for part in (other, *_running(other)))
            continue
        yield child
        yield from _running(child)


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> set[str]:
    """Every module that is imported when the code runs, functions included."""
    found = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names if base.startswith("smfix"))
    return found


def _house_imports(name: str) -> set[str]:
    """The modules of smfix that `name` imports (names inside a module count as the module)."""
    return {found for found in _imports(_tree(name)) if found in MODULES and found != "smfix"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_is_known_as_pure_or_not(name):
    assert matches(name, PURE) or matches(name, ACTS), "put it into one list of tools/purity.py"


def _layer(name: str) -> str:
    return name.removeprefix("smfix.") if name in ("smfix.sm.paths", "smfix.report.escape") else name.split(".")[1]


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"smfix"}))
def test_arrows_never_turn_back(name):
    layer = _layer(name)
    assert layer in MAY_IMPORT, "say in ARROWS what it may import"
    allowed = {layer} | MAY_IMPORT[layer]
    wrong = {other for other in _house_imports(name) if _layer(other) not in allowed}
    assert not wrong, f"{name} must not import {sorted(wrong)}"


def test_no_image_format_is_named_outside_formats():
    """Everything else gets an image's format from `formats.registry`, so that a second format needs no change there."""
    formats = {path.name for path in (ROOT / "smfix" / "formats").iterdir() if (path / "__init__.py").exists()}
    assert formats, "there are formats"
    for name in MODULES:
        if not name.startswith("smfix.formats"):
            found = {other for other in _imports(_tree(name)) if other.startswith("smfix.formats.")}
            assert not {other.split(".")[2] for other in found} & formats, name


def test_nothing_lies_loose():
    """Every module is in a package but the entry point, the errors and the values that travel."""
    loose = {path.name for path in (ROOT / "smfix").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "errors.py", "values.py"}


@pytest.mark.parametrize("name", sorted(pure_modules()))
def test_pure_modules_touch_nothing(name):
    tree = _tree(name)
    roots = {found.split(".")[0] for found in _imports(tree)}
    assert not roots & TOUCHES_THE_MACHINE
    impure = {other for other in _house_imports(name) if not is_pure(other)}
    assert not impure, f"{name} is pure, these are not: {sorted(impure)}"
    for node in _running(tree):
        if isinstance(node, ast.Call):
            call = node.func
            if isinstance(call, ast.Name):
                assert call.id not in {"open", "print", "input", "exec", "eval"}, node.lineno
            elif isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name):
                is_clock = call.value.id in {"datetime", "date"} and call.attr in CLOCKS
                assert not (is_clock and not node.args), f"a clock in line {node.lineno}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "sys" or node.attr in OF_THE_BUILD, node.lineno


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_hides_its_meaning(name):
    assert not NAMELESS & set(name.split("."))


def test_only_storage_and_the_writers_change_images():
    """`os.pwrite` and friends live in host/image_file.py; only repair opens an image for writing."""
    for name in MODULES:
        for node in _running(_tree(name)):
            if isinstance(node, ast.Attribute) and node.attr in {"pwrite", "pwritev", "ftruncate"}:
                assert name == "smfix.host.image_file", f"{name}:{node.lineno} writes at an offset"


def test_programs_are_started_in_one_place():
    """Where their environment is cleaned: nothing of a self-contained smfix reaches them."""
    starts = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
    for name in MODULES:
        found = _imports(_tree(name))
        if name != "smfix.host.subprocesses":
            assert "subprocess" not in found or not _named(_tree(name), "subprocess") & starts, name
        for node in _running(_tree(name)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                assert not node.attr.startswith(("exec", "spawn", "posix_spawn", "popen", "system")), name


def _named(tree: ast.AST, module: str) -> set[str]:
    """What a tree takes from `module`: by ``from module import name``, and as ``module.name``."""
    found = set()
    for node in _running(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module:
            found.add(node.attr)
    # A type in an annotation starts nothing.
    called = {node.func.id for node in _running(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return {name for name in found if name != "Popen" or name in called}


def test_start_up_is_lazy():
    """Importing everything but the command line loads none of the heavy packages."""
    names = [name for name in MODULES if name.split(".")[1:2] not in (["cli"], ["__main__"])]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        f"print(sorted(set(sys.modules) & {LAZY!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_only_the_command_line_knows_typer():
    assert {name.split(".")[1] for name in MODULES if "typer" in _imports(_tree(name))} == {"cli"}


def test_the_import_reader_sees_what_runs():
    tree = ast.parse(
        "import os.path\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import time\nelse:\n    import json\n"
        "def f():\n    from smfix import values\n"
    )
    assert _imports(tree) == {"os.path", "typing", "json", "smfix", "smfix.values"}


def test_module_names_are_those_of_the_import_system():
    assert MODULES["smfix"] == ROOT / "smfix" / "__init__.py"
    assert MODULES["smfix.values"] == Path(ROOT, "smfix", "values.py")
