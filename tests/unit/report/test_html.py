"""The page: escaped whatever came in, complete without a network, readable by everybody."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources

import pytest

from html_reader import Reader, complaints
from images import base, footer_of, lost_footer, seen
from report_values import CLOCK, PATH, SR, VDI, incident, outcome, reading, treated
from smfix.formats.vhd.diagram import diagram
from smfix.report import html, page_model
from smfix.report.page_model import Environment, FooterBytes, Portrait, Relative, Side
from smfix.values import Evidence, Names, Reason, Rescan, State, Status
from steps import as_it_is

ENVIRONMENT = Environment(
    "1.2.3", "3.11.7", "Linux", "host", "root", "smfix from-log", datetime(2026, 1, 2, tzinfo=UTC)
)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202egpj.exe\0{{7*7}}&amp;"


def portrait() -> Portrait:
    """A disk with its footer overwritten, before and after."""
    footer = footer_of(base()).encode()
    guest = FooterBytes("Footer at byte 1", 1, b"secret" + bytes(506), False, footer)
    sound = FooterBytes("Footer at byte 2", 2, footer, True, footer)
    chain = (Relative("parent.vhd", 0, "valid"), Relative("x.vhd", 1, "INVALID", is_self=True, is_damaged=True))
    return Portrait(
        (
            Side("before", diagram(seen(lost_footer(base())[:-1000])), (guest,)),
            Side("after", diagram(seen(base())), (sound,)),
        ),
        chain,
    )


def page(**changes) -> str:
    values = {
        "title": "Storage log report",
        "sum": "1 incident: 1 repaired, 0 left.",
        "cards": [page_model.of_incident(treated(names=Names("disk", "sr", ("web", "mail"))))],
        "portraits": [portrait()],
        "environment": ENVIRONMENT,
        "reading": reading(notes=("a note",), year_assumed=True),
        "rescans": (Rescan(SR, "sr", True, "scanned", 2, None), Rescan(SR, None, False, "left out")),
        "forest": (("/sr", portrait().chain, 3),),
    }
    return html.render(html.Page(**{**values, **changes}))


def test_everything_an_engineer_asks_stands_in_it():
    text = Reader(page()).text
    for word in ("web, mail", VDI, PATH, "VHD101", "smfix undo 20251122-221903-3f9a1c", f"xe sr-scan uuid={SR}"):
        assert word in text
    for word in ("SMlog:1", "[26919] FAILED", "3.11.7", "1.2.3", "2026-01-02", "unhealthy chains: 2 before", "a note"):
        assert word in text
    assert text.index("Summary") < text.index("What to type next") < text.index("Disks") < text.index("What was read")


def test_it_can_be_read_by_everybody():
    assert complaints(page()) == []
    assert complaints(page(cards=[], portraits=[], reading=None, rescans=(), forest=())) == []


def test_it_needs_nothing_from_outside_and_forbids_itself_the_rest():
    made = page()
    read = Reader(made)
    addresses = [a[key] for _, a in read.elements for key in ("src", "href", "action", "data", "srcset") if key in a]
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    names = {tag for tag, _ in read.elements}
    assert not names & {"script", "iframe", "object", "embed", "form", "img", "base", "audio", "video"}
    assert not [key for _, a in read.elements for key in a if key.startswith("on") or key == "style"]
    assert "url(http" not in made
    assert "@import" not in made
    policy = next(a["content"] for a in read.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", made, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_whatever_came_in_is_text_and_acts_nowhere():
    card = replace(
        page_model.of_incident(
            treated(
                vdi=HOSTILE,
                sr=HOSTILE,
                path=HOSTILE,
                names=Names(HOSTILE, HOSTILE, (HOSTILE,)),
                incident=incident(
                    kinds=(HOSTILE,), host=HOSTILE, evidence=(Evidence(HOSTILE, 1, HOSTILE),), sr=HOSTILE
                ),
                outcome=outcome(
                    Status.PARTLY_REPAIRED,
                    message=HOSTILE,
                    undo=as_it_is(HOSTILE),
                    next=(as_it_is(HOSTILE),),
                    journal=HOSTILE,
                    remaining=(CLOCK._replace(message=HOSTILE, title=HOSTILE),),
                    lost_sectors=4,
                ),
            )
        ),
        wrong=HOSTILE,
    )
    relative = Relative(HOSTILE, 99, HOSTILE)
    made = page(
        title=HOSTILE,
        sum=HOSTILE,
        cards=[card],
        portraits=[replace(portrait(), chain=(relative,), note=HOSTILE)],
        environment=replace(ENVIRONMENT, command=HOSTILE, host=HOSTILE, user=HOSTILE, system=HOSTILE),
        reading=reading(files=(HOSTILE,), notes=(HOSTILE,)),
        rescans=(Rescan(HOSTILE, HOSTILE, False, HOSTILE),),
        forest=((HOSTILE, (relative,), 0),),
    )
    assert made.isascii()
    assert "<script" not in made
    assert "<img" not in made
    assert "49" not in Reader(made).text.split()
    assert "{{7*7}}&amp;" in Reader(made).text
    assert "\x1b" not in Reader(made).text
    assert "\u202e" not in Reader(made).text
    assert "\0" not in Reader(made).text
    assert complaints(made) == []


def test_a_guests_data_is_in_it_only_if_asked_for():
    hex_of_secret = "73 65 63 72 65 74"
    assert hex_of_secret not in Reader(page()).text
    assert "hidden" in Reader(page()).text
    asked = Reader(page(include_data=True)).text
    assert hex_of_secret in asked
    assert "do not pass this page on" in asked


def test_what_is_sound_needs_no_dump():
    sides = tuple(replace(side, footers=()) for side in portrait().sides)
    assert "Both footers are sound and were not touched." in Reader(page(portraits=[Portrait(sides)])).text
    assert "Both footers are sound." in Reader(page(portraits=[Portrait(sides[1:])])).text


def test_disks_without_a_card_are_in_the_table():
    cards = [page_model.of_incident(treated(outcome=None, state=State.RESOLVED)), page_model.of_incident(treated())]
    text = Reader(page(cards=cards, portraits=[Portrait(note="no picture")])).text
    assert "the first 1 have a card below" in text
    assert "no picture" in text


def test_what_is_to_do_comes_first_among_the_commands():
    waiting = outcome(Status.REFUSED, reason=Reason.NEEDS_CONFIRM, next=(as_it_is("smfix repair x --confirm VHD301"),))
    cards = [page_model.of_incident(treated()), page_model.of_incident(treated(outcome=waiting))]
    assert html._next(html.Page("", "", cards, [], ENVIRONMENT)) == ["smfix repair x --confirm VHD301"]
    assert html._next(html.Page("", "", cards[:1], [], ENVIRONMENT)) == [f"xe sr-scan uuid={SR}"]


def test_long_lists_are_cut_in_the_middle():
    files = tuple(f"SMlog.{number}.gz" for number in range(100))
    text = Reader(page(reading=reading(files=files))).text
    assert "(76 more)" in text
    assert "SMlog.0.gz" in text
    assert "SMlog.99.gz" in text
    assert "SMlog.50.gz" not in text


def test_a_log_without_times_and_pool():
    card = page_model.of_incident(treated(incident=incident(first_seen=None, last_seen=None)))
    text = Reader(page(cards=[card], reading=reading(first=None, last=None))).text
    assert "When it was reported" not in text
    assert "no pool could be asked" in text


def test_our_own_pages_are_known_again():
    made = page().encode()
    assert html.is_ours(made[: html.SIGNED])
    assert not html.is_ours(made[:100])
    assert not html.is_ours(b"<!DOCTYPE html><html>" + html.GENERATOR)


# --------------------------------------------------------------------------- colours


def _colours(block: str) -> dict[str, tuple[int, int, int]]:
    found = re.findall(r"--(\w+): #([0-9a-f]{6})", block)
    return {name: tuple(int(code[at : at + 2], 16) for at in (0, 2, 4)) for name, code in found}


def _contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2.1, contrast ratio."""

    def light(colour: tuple[int, int, int]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_the_words_stand_out_from_the_paper(scheme):
    style = resources.files("smfix.report").joinpath("templates", "page.css").read_text()
    colours = _colours(re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme])
    for name in ("ink", "soft", "good", "waiting", "bad", "calm", "link"):
        for paper in ("paper", "field"):
            assert _contrast(colours[name], colours[paper]) >= 4.5, (name, paper)
    for name in ("damaged", "footer", "backup", "header", "bat", "batmap"):
        assert _contrast(colours[name], colours["paper"]) >= 3, name


def test_what_is_copied_is_held_together():
    line = 'for id in 20251122-221903-3f9a1c; do smfix undo "$id" --journal-dir /j; done'
    made = page(undo_all=line)
    assert line in Reader(made).text
    assert "To undo all of it" in Reader(made).text
    assert "To undo all of it" not in page()
    for word in (VDI, SR, "20251122-221903-3f9a1c", "--journal-dir"):
        assert f'<span class="word">{word}</span>' in made


def test_what_is_held_together_is_escaped_first():
    assert html._whole("<b>\x1b--x") == "&lt;b&gt;\\x1b--x"
    assert html._whole(7) == "7"
    assert html._whole(f"<{VDI}> --yes") == (f'&lt;<span class="word">{VDI}</span>&gt; <span class="word">--yes</span>')


def test_what_was_wrong_and_what_was_done():
    text = Reader(page()).text
    assert "What was wrong" in text
    assert "the backup footer was appended as the footer:" in text
    waiting = page(cards=[page_model.of_incident(treated(outcome=outcome(Status.WOULD_REPAIR)))])
    assert "What is wrong" in Reader(waiting).text
    assert "append the footer, a copy of the one at offset 0:" in Reader(waiting).text
