"""What is cheap to know of the packages: one version, units, pages and templates that agree with the code."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import smfix
from smfix.follow import commands
from smfix.host import bundle

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"


@pytest.fixture(scope="module")
def scripts():
    """packaging/ as it imports itself: by names of its own folder."""
    names = ("third_party", "make_dist", "make_packages")
    sys.path.insert(0, str(PACKAGING))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(PACKAGING))
        for name in names:
            sys.modules.pop(name, None)


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "smfix/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", smfix.__version__)
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False).stdout
    code = [
        ROOT / name
        for name in files.split()
        if not name.startswith("tests/") and name.endswith((".py", ".in", ".toml", ".spec", ".yml", "Makefile"))
    ]
    assert code or not (ROOT / ".git").exists()
    stated = re.compile(rf"(?i)version\b.*\b{re.escape(smfix.__version__)}\b")
    found = {path for path in code if stated.search(path.read_text(encoding="utf-8"))}
    # Ansible reads a collection's version from this file only: it repeats ours, and no other does.
    galaxy = ROOT / "ansible" / "ansible_collections" / "smfix" / "remediation" / "galaxy.yml"
    assert f"\nversion: {smfix.__version__}\n" in galaxy.read_text(encoding="utf-8")
    assert found <= {ROOT / "smfix" / "__init__.py", galaxy}


def test_the_changelog_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased|{re.escape(smfix.__version__)})\]", text, re.MULTILINE)


def test_templates_are_filled_whole(scripts):
    fill = scripts["make_packages"].filled
    words = {"VERSION": smfix.__version__, "SUMMARY": "s", "DESCRIPTION": "d", "TREE": "/t", "KIBIBYTES": 1}
    for template in (*PACKAGING.glob("*/*.in"),):
        text = fill(template, words)
        assert not re.search(r"@[A-Z]+@", text)
        assert f"Version: {smfix.__version__}\n" in text
    assert len(list(PACKAGING.glob("*/*.in"))) == 2


def test_the_rpm_lists_what_is_put_into_it(scripts, tmp_path):
    """Every file of the tree is named in %files, and the other way round."""
    make = scripts["make_packages"]
    program = tmp_path / "smfix"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m smfix "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "smfix.third-party.txt").write_text("", encoding="utf-8")
    tree = tmp_path / "tree"
    make.common(program, tree)
    put = {f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file()}
    assert b"_smfix_completion" in (tree / "usr/share/bash-completion/completions/smfix").read_bytes()
    pages = {path.name for path in (ROOT / "docs" / "man").glob("*.1")}
    assert {Path(name).stem for name in put if "/man1/" in name} == pages
    spec = (PACKAGING / "rpm" / "smfix.spec.in").read_text(encoding="utf-8").partition("%files")[2]
    listed = re.findall(r"^(?!#).*?(/(?:usr|etc|var)\S+)$", spec.partition("%post")[0], re.MULTILINE)
    for name in put:
        assert any(Path(name).match(pattern) or Path(pattern) in Path(name).parents for pattern in listed), name
    assert "%config(noreplace) %attr(0600, root, root) /etc/smfix/policy.toml" in spec
    assert "journal" not in spec.partition("%post")[2]  # no script touches what was written by repairs


def test_the_packaged_unit_is_the_one_that_service_install_writes(scripts):
    text = scripts["make_packages"].unit()
    assert text.startswith("# Of the package smfix.")
    assert "service install" not in text
    started = "from-log --follow /var/log/SMlog --policy /etc/smfix/policy.toml"
    assert f"ExecStart=/usr/bin/smfix {started}\n" in text
    assert "ExecReload=/usr/bin/smfix service reload\n" in text


def test_the_packaged_policy_can_be_read_and_repairs_nothing():
    policy = commands.read_policy(str(PACKAGING / "policy.toml"))
    assert policy.dry_run


def test_the_mark_is_the_one_that_is_looked_for(scripts):
    assert scripts["make_dist"].MARK == bundle.MARK


def test_the_words_of_the_bootloader_have_the_length_of_those_they_replace(scripts, tmp_path):
    make = scripts["make_dist"]
    for theirs, ours in make.WORDS.items():
        assert len(theirs) == len(ours)
        assert ours.count(b"%") == theirs.count(b"%")
    file = tmp_path / "bootloader"
    code = b"\0".join(make.WORDS) + b"\0"
    file.write_bytes(code)
    make.reword(file)
    assert file.read_bytes() == b"\0".join(make.WORDS.values()) + b"\0"
    file.write_bytes(code + code)  # not sure which one is meant: they stay
    make.reword(file)
    assert file.read_bytes() == code + code


def test_every_module_that_packaging_leaves_out_is_left_alone_by_smfix():
    """What the self-contained file does not hold is imported by no line of smfix."""
    spec = (PACKAGING / "smfix.pyinstaller.spec").read_text(encoding="utf-8")
    left_out = set(re.findall(r'"([\w.]+)"', spec.partition("LEFT_OUT = [")[2].partition("]")[0]))
    assert len(left_out) > 10
    for path in (ROOT / "smfix").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not left_out & {part for name in imported for part in (name, name.split(".")[0])}, path


def test_the_unit_is_one_that_systemd_reads(scripts, tmp_path):
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "smfix.service"
    unit.write_text(scripts["make_packages"].unit().replace("/usr/bin/smfix", "/bin/true"), encoding="utf-8")
    done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "smfix.service" in line]
    assert not complaints
