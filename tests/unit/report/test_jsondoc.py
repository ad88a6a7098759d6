from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator, ValidationError

from report_values import LOST_FOOTER, PATH, WHEN, incident, outcome, plan, reading, treated
from schemas import _SCHEMAS, valid
from smfix.report import jsondoc
from smfix.values import (
    CheckedImage,
    Exit,
    Extent,
    InUse,
    JournalRecord,
    Reason,
    Resize,
    State,
    Status,
    TreatedImage,
    Verdict,
    Write,
)
from steps import as_it_is


def test_the_schemas_are_schemas():
    assert _SCHEMAS
    for schema in _SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_from_log():
    resolved = treated(outcome=None, state=State.RESOLVED)
    refused = treated(outcome=outcome(Status.REFUSED, reason=Reason.IN_USE, plan=None, undo=None))
    document = valid(jsondoc.from_log(reading(), [treated(), resolved, refused]))
    assert document["summary"] == {"incidents": 3, "repaired": 1, "left": 1}
    assert document["exit"] == 5
    assert document["log"]["first"] == "2012-05-15T00:18:35.127755+00:00"
    assert document["incidents"][0]["outcome"]["plan"] == {
        "edits": [{"op": "resize", "size": 2048}, {"op": "write", "offset": 2048, "length": 512}]
    }
    assert document["incidents"][1]["outcome"] is None
    assert document["incidents"][2]["outcome"]["plan"] is None


def test_an_empty_log():
    document = valid(jsondoc.from_log(reading(files=(), bytes=0, first=None, last=None), []))
    assert document["incidents"] == []
    assert document["exit"] == 0


def test_an_unresolved_prefix_has_no_sr_and_no_path():
    document = valid(
        jsondoc.from_log(
            reading(),
            [
                treated(
                    incident=incident(first_seen=None, last_seen=None, evidence=()),
                    vdi="1d994938",
                    sr=None,
                    path=None,
                    outcome=outcome(Status.NOT_FOUND, plan=plan(edits=()), journal=None, undo=None),
                )
            ],
        )
    )
    assert document["incidents"][0]["sr"] is None
    assert document["incidents"][0]["outcome"]["plan"] is None


def test_check():
    images = [
        CheckedImage(PATH, Verdict.INVALID, 4096, 2048, (LOST_FOOTER,)),
        CheckedImage("/nowhere", Verdict.UNREADABLE, note="cannot open /nowhere"),
    ]
    document = valid(jsondoc.check(images))
    assert document["exit"] == 12
    assert document["images"][0]["findings"][0]["facts"] == {
        "where": {"offset": 1024, "length": 512},
        "reasons": ["invalid cookie"],
    }
    assert document["images"][1]["size"] is None


def test_repair():
    document = valid(jsondoc.repair([TreatedImage(PATH, outcome())]))
    assert document["images"][0]["outcome"]["undo"] == "smfix undo 20251122-221903-3f9a1c"
    assert document["exit"] == 1


def test_journal():
    whole = JournalRecord(
        "20251122-221903-3f9a1c",
        "verified",
        "/j/20251122-221903-3f9a1c.verified",
        created=WHEN,
        path=PATH,
        old_size=1500,
        new_size=2560,
        edits=(Resize(2048), Write(2048, bytes(512))),
        fixes=(("VHD101", "lost"),),
        undo=as_it_is("smfix undo 20251122-221903-3f9a1c"),
    )
    damaged = JournalRecord("20251122-221903-3f9a1d", "unfinished", "/j/x", damage="its checksum")
    document = valid(jsondoc.journal([whole, damaged]))
    assert document["journals"][0]["fixes"] == [{"code": "VHD101", "message": "lost"}]
    assert document["journals"][1]["path"] is None


def test_undo_and_error():
    done = outcome(Status.ROLLED_BACK, plan=None, undo=None)
    assert valid(jsondoc.undo(TreatedImage(PATH, done), Exit.CLEAN))["id"] == done.journal
    assert valid(jsondoc.error("no such log", Exit.FAILED))["exit"] == 8


def test_text_is_ascii_and_cannot_act():
    text = jsondoc.dumps(jsondoc.error("\x1b[2J\u202e\udcff", Exit.FAILED))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["message"] == "\x1b[2J\u202e\udcff"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (InUse.NONE, "none"),
        (Exit.FAILED, 8),
        (datetime(2012, 1, 2, tzinfo=UTC), "2012-01-02T00:00:00+00:00"),
        (b"\x00\xff", "00ff"),
        ({"a": (1, {2})}, {"a": [1, [2]]}),
        ({1: "x"}, {"1": "x"}),
        (Extent(1, 2), {"offset": 1, "length": 2}),
        (1j, "1j"),
    ],
)
def test_facts_of_any_kind(value, expected):
    assert jsondoc.plain(value) == expected


def test_the_strict_schema_sees_what_is_missing_or_new():
    document = jsondoc.error("x", Exit.FAILED)
    with pytest.raises(ValidationError):
        valid({key: value for key, value in document.items() if key != "exit"})
    with pytest.raises(ValidationError):
        valid({**document, "more": 1})


def test_a_long_document_is_told_in_pieces():
    document = {"schema": "x", "disks": [{"vdi": str(number) * 20, "none": None} for number in range(5000)]}
    pieces = list(jsondoc.pieces(document))
    assert "".join(pieces) == jsondoc.dumps(document)
    assert len(pieces) > 5
    assert list(jsondoc.pieces({})) == ["{}\n"]
