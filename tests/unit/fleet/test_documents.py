"""One host's document: what it says of its disks, and that nothing hostile in it does more than be refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_values import BASE, OTHER, SR, check, error, from_log, incident, outcome, path_of, raw
from smfix.fleet import documents
from smfix.fleet.documents import NotADocument, read_document

FIRST = datetime(2026, 11, 20, 9, tzinfo=UTC)


def sights(document):
    return read_document(raw(document)).observations


def test_an_incident_with_an_outcome():
    (one,) = sights(from_log(incident(how=outcome())))
    assert (one.vdi, one.sr, one.status, one.codes, one.kinds) == (
        BASE,
        SR,
        "repaired",
        ("VHD101",),
        ("footer-invalid",),
    )
    assert (one.first, one.last, one.undo, one.message) == (FIRST, FIRST, "smfix undo 1", "repaired it is")


def test_incidents_that_nobody_looked_at():
    open_, over = sights(from_log(incident(), incident(state="resolved", first_seen=None, path="/p")))
    assert (open_.status, over.status, over.first, over.path) == ("reported", "resolved", None, "/p")


def test_the_status_of_a_follower():
    def case(stage, **other):
        return {"stage": stage, "incident": incident(**other)}

    document = {
        "schema": "smfix.status/1",
        "followers": [
            {
                "note": None,
                "incidents": [case("confirmed"), case("seen"), case("confirmed", how=outcome())],
            },
            {"note": "its state is damaged", "incidents": []},
        ],
    }
    said = read_document(raw(document))
    assert [one.status for one in said.observations] == ["resolved", "reported", "repaired"]
    assert said.trouble == ("its state is damaged",)


def test_images_that_were_looked_at():
    device = f"/dev/VG_XenStorage-{SR}/VHD-{OTHER}"
    document = check((path_of(BASE), "invalid"), (device, "in-use"), ("/images/x.vhd", "unreadable"), note="why")
    said = read_document(raw(document))
    assert [(one.vdi, one.sr, one.status, one.codes, one.message) for one in said.observations] == [
        (BASE, SR, "invalid", ("VHD101",), "why"),
        ("", None, "unreadable", (), "why"),
    ]
    assert len(set(said.images)) == 3


def test_the_same_image_has_the_same_number_whoever_saw_it():
    one = read_document(raw(check((path_of(BASE), "valid"))))
    other = read_document(raw(check((f"/var{path_of(BASE)}", "in-use"))))
    assert one.images == other.images


def test_a_scan_names_disk_and_sr_itself():
    document = check((path_of(BASE), "invalid"))
    document["schema"] = "smfix.scan/1"
    document["images"][0] |= {"vdi": OTHER.upper(), "sr": None}
    (one,) = sights(document)
    assert (one.vdi, one.sr) == (OTHER, SR)


def test_repairs():
    document = {
        "schema": "smfix.repair/1",
        "images": [{"path": path_of(BASE), "outcome": outcome("refused", "in-use")}],
    }
    (one,) = sights(document)
    assert (one.vdi, one.sr, one.status, one.reason, one.undo) == (BASE, SR, "refused", "in-use", None)


def test_a_host_that_could_not():
    said = read_document(b"\xef\xbb\xbf" + raw(error("no route to host" + "!" * 400)))
    assert said.kind == "error"
    assert said.trouble[0].startswith("no route to host!")
    assert len(said.trouble[0]) == 300


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (raw(from_log(incident()))[:-40], "not whole"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"schema": "smfix.from-log/1", "incidents": ' + b"[" * 200_000, "nested too deeply"),
        (b"[]", "not a document of smfix"),
        (b"{}", "schema of the document is not text"),
        (b'{"schema": 1}', "is not text"),
        (b'{"schema": "other/1"}', "'other/1', which cannot be merged"),
        (b'{"schema": "smfix.journal/1"}', "cannot be merged"),
        (b'{"schema": "smfix.from-log/2", "incidents": []}', "only a newer smfix reads"),
        (b'{"schema": "smfix.from-log/1", "incidents": 3}', "incidents of the document is not a list"),
        (b'{"schema": "smfix.from-log/1", "incidents": [3]}', "incidents[0] is not an object"),
        (b'{"schema": "smfix.from-log/1", "incidents": [], "n": 1e3, "m": NaN}', "NaN is not a number"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe{\x00", "not UTF-8 (byte 0)"),
        (raw(from_log(incident())).replace(b"2026-11-20T10", b"2026-11-20X10+9"), "is not a time"),
        (
            raw(from_log(incident())).replace(b"2026-11-20T10:00:00+01:00", b"0001-01-01T00:00:00+14:00"),
            "is not a time",
        ),
        (
            raw(from_log(incident(how=outcome()))).replace(b'"repaired"', b'"\\u001b[31m"'),
            "status of incidents[0].outcome",
        ),
        (
            raw(from_log(incident(how=outcome()))).replace(b'"findings": [{', b'"findings": 1, "x": [{'),
            "findings is not a list",
        ),
        (b'{"schema": "smfix.check/1", "images": [{"path": "/p", "verdict": "valid\\n"}]}', "verdict of images[0]"),
        (
            b'{"schema": "smfix.status/1", "followers": [{"incidents": [{}]}]}',
            "followers[0].incidents[0].incident is no",
        ),
    ],
)
def test_what_is_no_document_is_refused_with_its_reason(data, why):
    with pytest.raises(NotADocument) as refused:
        read_document(data)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 200


def test_what_is_beyond_the_bounds_is_counted(monkeypatch):
    monkeypatch.setattr(documents, "MOST_DISKS", 2)
    said = read_document(raw(from_log(*(incident() for _ in range(5)))))
    assert (len(said.observations), said.left_out) == (2, 3)
    monkeypatch.setattr(documents, "MOST_VALUES", 10)
    with pytest.raises(NotADocument, match="more than 10 values"):
        read_document(raw(from_log(incident())))


def test_what_a_later_smfix_says_more_is_passed_over():
    document = from_log(incident(how=outcome()))
    told = document["incidents"][0]
    told["kinds"] += ["brand-new-kind", "Bad Kind", 7]
    told["outcome"] |= {"status": "brand-new", "reason": "Not A Word", "undo": 7, "more": {}}
    told["outcome"]["findings"] += [{"code": "VHD999", "severity": "error"}, {"code": "x"}, 7]
    (one,) = sights(document)
    assert (one.status, one.reason, one.undo) == ("brand-new", None, None)
    assert one.kinds == ("footer-invalid", "brand-new-kind")
    assert one.codes == ("VHD101", "VHD999")


KEYS = st.sampled_from(
    ["incidents", "images", "outcome", "vdi", "sr", "path", "kinds", "verdict", "findings", "message"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


@given(st.sampled_from(["from-log", "status", "check", "scan", "repair", "error"]), st.dictionaries(KEYS, JSON))
def test_any_document_is_read_or_refused(kind, document):
    with suppress(NotADocument):  # and nothing else
        assert read_document(raw({**document, "schema": f"smfix.{kind}/1"})).kind == kind


@given(st.binary())
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(NotADocument):
        read_document(data)
