"""The page in a real browser: it asks for nothing, runs nothing, and fits on a phone, in the dark, on paper."""

from __future__ import annotations

import pytest
from test_html import ENVIRONMENT, HOSTILE, page

from browser import Browser
from needed_tools import need_tool
from report_values import SR, VDI
from smfix.report import html
from smfix.report.page_model import Table
from world import LEAF, make_world

pytestmark = pytest.mark.tools("chromium")


@pytest.fixture(scope="module")
def browser():
    with Browser(need_tool("chromium")) as opened:
        yield opened


@pytest.fixture
def show(browser, tmp_path):
    """Open a page and see to it that it asked for nothing but itself, and had nothing to say."""

    def open_page(made: str, **options):
        file = tmp_path / "report.html"
        file.write_text(made, "ascii")
        browser.requests.clear()
        browser.said.clear()
        browser.open(file, **options)
        browser.call("Runtime.evaluate", expression="1")  # what happened while it loaded has arrived by now
        assert [address for address in browser.requests if not address.startswith("data:")] == [file.as_uri()]
        assert browser.said == []
        return browser

    return open_page


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_without_scrolling_sideways(show, width, dark):
    shown = show(page(), width=width, dark=dark)
    assert shown.ask("document.scrollingElement.scrollWidth <= window.innerWidth")
    paper = shown.ask("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert shown.picture(whole=False).startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [1280, 360])
def test_a_copied_command_is_one_line(show, width):
    line = f"smfix check /run/sr-mount/{SR}/{VDI}.vhd --sr-mount /x"
    shown = show(page(undo_all=line), width=width)
    picked = "[...document.querySelectorAll('pre')].find(pre => pre.ariaLabel.startsWith('To undo all'))"
    selected = f"(() => {{ const s = getSelection(); s.selectAllChildren({picked}); return s.toString(); }})()"
    assert shown.ask(selected).strip() == line
    bars = "[...document.querySelectorAll('svg.mark')].map(one => one.getBoundingClientRect().width)"
    assert min(shown.ask(bars)) > width / 2


@pytest.mark.parametrize("width", [1280, 360])
def test_a_fleets_tables_fit_and_break_no_word(show, width):
    columns = ("SR", "hosts", "disks", "repaired", "since")
    rows = [(SR, "xcp1, xcp2", "8", "0", "2026-11-27 16:13:04+00:00"), ("not known", "xcp3", "1", "1", "")]
    made = html.render_tables("Fleet report", ["sum"], [Table("srs", "SRs", columns, rows)], ENVIRONMENT)
    shown = show(made, width=width)
    assert shown.ask("document.scrollingElement.scrollWidth <= window.innerWidth")
    heights = "[...document.querySelectorAll('thead th, .word')].map(one => one.getClientRects()[0].height)"
    assert max(shown.ask(heights)) < 40
    labelled = "getComputedStyle(document.querySelector('td'), '::before').content"
    assert ("hosts" in str(shown.ask(labelled)) or "attr(" in str(shown.ask(labelled))) == (width == 360)


def test_its_style_is_in_force_and_its_drawings_are_drawn(show):
    shown = show(page())
    assert shown.ask("getComputedStyle(document.querySelector('article')).borderLeftWidth") == "6px"
    assert shown.ask("document.querySelector('svg.picture rect').getBoundingClientRect().width") > 1


def test_hostile_names_do_nothing(show):
    hostile = {"title": HOSTILE, "sum": HOSTILE, "forest": ((HOSTILE, (), 0),)}
    shown = show(page(**hostile))
    assert shown.ask("document.scripts.length + document.images.length") == 0
    assert shown.ask("document.querySelector('h1').textContent").startswith("<script>alert(1)</script>")


def test_even_a_mistake_of_ours_could_run_nothing_and_ask_nobody(tmp_path):
    """The policy, with the escaping taken away: markup that would act is there, and does not.

    In a browser of its own: a violation is reported some time later, and must not be heard by another test.
    """
    bad = "<script>window.ran = 1</script><img src='http://127.0.0.1:9/x.png' onerror='window.ran = 2'>"
    bad += "<link rel=stylesheet href='http://127.0.0.1:9/x.css'><p style='color: red' id=styled>x</p>"
    bad += "<iframe src='http://127.0.0.1:9/'></iframe><form action='http://127.0.0.1:9/'></form>"
    file = tmp_path / "broken.html"
    file.write_text(page().replace("</main>", f"{bad}</main>"), "ascii")
    with Browser(need_tool("chromium")) as browser:
        browser.open(file)
        assert browser.ask("window.ran === undefined")
        assert browser.ask("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
        browser.ask("document.forms[0].submit()")
        assert "has been blocked" in browser.hear("form-action 'none'")
        assert browser.ask("document.title").startswith("smfix")
        sent = [address for address in browser.requests if address.startswith("http")]
        assert not sent or all("Refused" in line or "Content Security" in line for line in browser.said)


def test_it_prints(show):
    shown = show(page(), media="print")
    assert shown.printed().startswith(b"%PDF")
    assert shown.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.ask("getComputedStyle(document.querySelector('.skip')).display") == "none"


def test_a_real_run(show, tmp_path, capsys, monkeypatch):
    world = make_world(tmp_path / "world", capsys, monkeypatch)
    name = "<img src=x onerror=alert(1)>.vhd"
    (world.sr / name).write_bytes(world.image()[:-512] + b"<script>alert(2)</script>".ljust(512))
    world.put(world.image(LEAF), LEAF)
    file = tmp_path / "page.html"
    assert world.run("repair", world.sr, "--yes", "--html", file, "--include-data").code == 1
    shown = show(file.read_text("ascii"))
    assert shown.ask("document.scripts.length + document.images.length") == 0
    assert shown.ask("[...document.querySelectorAll('h3')].some(h => h.textContent.startsWith('<img'))")
    assert html.is_ours(file.read_bytes())
