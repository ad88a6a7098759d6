"""The site of `make docs`, opened from a folder in a real browser: search works, no page is too wide or fetches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from browser import LIMIT, Browser
from needed_tools import need_tool

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index.html", "reference/findings.html", "howto/follow.html", "evidence/matrix.html", "adr/index.html")

pytest.importorskip("material", reason="needs mkdocs-material: make docs")
pytestmark = pytest.mark.tools("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    clean = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def tab(site):
    with Browser(need_tool("chromium")) as browser:
        yield browser


def test_search_works_from_a_folder(site, tab):
    tab.open(site / "howto" / "lvm.html")
    tab.ask("document.querySelector('.md-search__input').focus()")
    tab.call("Input.insertText", text="batmap")
    end = time.monotonic() + LIMIT
    while not (
        found := tab.ask("[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join(' ')")
    ):
        assert time.monotonic() < end, "no result"
        time.sleep(0.1)
    assert (site / "reference" / "findings.html").as_uri() in found


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_fits_and_loads_nothing_from_elsewhere(site, tab, page, dark, width):
    tab.open(site / page, width=width, dark=dark)
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask("document.body.dataset.mdColorScheme") == ("slate" if dark else "default")
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    assert tab.said == []


def test_findings_have_their_titles_beside_the_page(site, tab):
    tab.open(site / "reference" / "findings.html")
    links = "[...document.querySelectorAll('.md-sidebar--secondary .md-nav__link')]"
    beside = tab.ask(f"{links}.map(link => link.innerText)")
    assert "VHD101 footer lost, backup footer sound" in beside
