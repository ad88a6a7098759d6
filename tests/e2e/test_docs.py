"""The documentation: generated pages are up to date, links lead somewhere, the tutorial's commands work."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from needed_tools import need_tool
from smfix.cli import app
from smfix.formats.vhd.problems.registry import PROBLEMS
from smfix.report.glossary import TERMS, terms
from world import make_world

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()
PAGES = GENERATE.pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_what_is_generated_is_up_to_date(name):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name], "run `make reference`"


def test_nothing_is_left_over_from_a_command_that_is_gone():
    there = {f"{path.parent.name}/{path.name}" for folder in ("man", "reference") for path in (DOCS / folder).iterdir()}
    assert there == set(PAGES) - {"adr/README.md"}


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    given = {found.group(1) for heading in headings if (found := re.search(r"\{ #(\S+) \}$", heading))}
    return given | {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in _LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), target


def test_every_page_is_in_the_sites_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    named = set(re.findall(r"(\S+\.md)", nav))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert named == pages


def test_findings_are_listed_with_their_titles():
    """In the page's own contents, which are its headings: a bare code says nothing."""
    headings = re.findall(r"^### (.+) \{ #(\S+) \}$", PAGES["reference/findings.md"], re.MULTILINE)
    assert headings == [(f"{row.code} {row.title}", row.code.lower()) for row in sorted(PROBLEMS, key=_code)]


def _code(row):
    return row.code


def test_decisions_have_numbers_without_gaps_a_topic_and_a_status():
    files = sorted((DOCS / "adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in files] == list(range(1, len(files) + 1))
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        for field in ("Topic", "Status"):
            assert re.search(rf"^\*\*{field}\.\*\* \S", text, re.MULTILINE), f"{path.name}: no **{field}.**"


def test_decisions_that_pages_and_code_cite_exist():
    there = {int(path.name[:4]) for path in (DOCS / "adr").glob("[0-9]*.md")}
    cited = {}
    for path in [*WRITTEN, *(ROOT / "smfix").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for number in re.findall(r"\bdecision (\d+)|docs/adr/(\d{4})", path.read_text(encoding="utf-8")):
            cited.setdefault(int(number[0] or number[1]), path)
    assert set(cited) <= there, {number: cited[number] for number in set(cited) - there}


def test_the_tutorial_works(tmp_path, capsys, monkeypatch):
    """Its commands, in order, with the exit codes it names."""
    make_world(tmp_path / "world", capsys, monkeypatch)
    folder = tmp_path / "demo"
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    ran = 0
    for block in re.findall(r"```console\n(.*?)```", tutorial, re.DOTALL):
        code = re.search(r"^# exit (\d+)$", block, re.MULTILINE)
        for line in re.findall(r"^\$ smfix (.+)$", block, re.MULTILINE):
            capsys.readouterr()
            done = app.run(shlex.split(line.replace("/tmp/demo", str(folder))))
            assert done == int(code.group(1) if code else 0), line
            out = capsys.readouterr().out
            ran += 1
            if "from-log" in line:
                card = re.search(r"^3\. c5c0cdc3.*?(?=^\d\. |\Z)", out, re.DOTALL | re.MULTILINE).group()
                for shown in re.search(r"^```\n(3\. .*?)```", tutorial, re.DOTALL | re.MULTILINE).group(1).splitlines():
                    assert shown.strip() in card or shown.strip() == "..."
    assert ran == 7
    assert (folder / "report.html").exists()


@pytest.mark.tools("groff")
@pytest.mark.parametrize("name", sorted(name for name in PAGES if name.startswith("man/")))
def test_the_manual_pages_are_sound_roff(name):
    line = [need_tool("groff"), "-man", "-Tascii", "-ww", "-z", str(DOCS / name)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_roff_escapes():
    assert GENERATE._roff(".sh -x \\ `a-b` it's") == "\\&.sh \\-x \\e \\fBa\\-b\\fR it\\(aqs"


# --------------------------------------------------------------------------- the words


def test_terms_are_whole_words_and_the_longest_that_fit():
    assert [term for term, _ in terms("The BATs of a backup footer; subsector; sector bitmaps")] == [
        "backup footer",
        "BAT",
        "sector bitmap",
    ]
    assert terms("") == ()


def test_every_term_is_used_by_some_finding():
    prose = " ".join(f"{p.message} {p.means} {p.why} {p.done} {p.advice} {p.title}" for p in PROBLEMS)
    assert {term for term, _ in terms(prose + " ".join(TERMS.values()))} == set(TERMS)
