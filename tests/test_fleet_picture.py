"""All documents together: each disk once, sums that add up, bounds that are told."""

from __future__ import annotations

from fleet_values import BASE, LEAF, OTHER, SHARED, SR, check, error, from_log, incident, outcome, path_of, raw
from smfix.fleet import picture as pictures
from smfix.fleet.documents import Said, Sight, read_document
from smfix.fleet.picture import Picture


def merged(*documents):
    picture = Picture()
    for host, document in documents:
        picture.take(host, read_document(raw(document)))
    return picture


def told(picture):
    return [(disk.told.vdi, disk.told.sr, disk.told.status) for disk in picture.disks]


def test_nothing():
    picture = Picture()
    assert (picture.disks, picture.srs, picture.causes, picture.exit) == ([], {}, {}, 0)


def test_a_shared_srs_disk_counts_once_and_the_strongest_word_holds():
    picture = merged(
        ("a", from_log(incident(sr=SHARED, how=outcome("refused", "shared-sr-unknown")))),
        ("b", from_log(incident(sr=SHARED, how=outcome("repaired"), first_seen="2026-11-01T00:00:00+00:00"))),
        ("c", from_log(incident(sr=SHARED, how=outcome("not-found", codes=())))),
    )
    assert told(picture) == [(BASE, SHARED, "repaired")]
    assert picture.total.disks == picture.total.groups["repaired"] == picture.causes["VHD101"].disks == 1
    assert picture.srs[SHARED].hosts == picture.causes["VHD101"].hosts == {0, 1, 2}
    assert picture.srs[SHARED].since.isoformat() == "2026-11-01T00:00:00+00:00"
    assert [dict(view.statuses) for view in picture.views] == [{"refused": 1}, {"repaired": 1}, {"not-found": 1}]
    assert picture.views[0].reasons == {"shared-sr-unknown": 1}
    assert picture.exit == 1


def test_the_same_disk_in_two_srs_is_two():
    picture = merged(("a", from_log(incident(sr=SR), incident(sr=SHARED))))
    assert picture.total.disks == 2


def test_eight_digits_are_the_one_disk_that_they_fit():
    for order in (1, -1):
        documents = [("a", from_log(incident(how=outcome()))), ("b", from_log(incident(vdi=BASE[:8])))]
        assert told(merged(*documents[::order])) == [(BASE, SR, "repaired")]
    both = BASE[:9] + BASE[9:].replace("0", "f")
    twins = merged(("a", from_log(incident(), incident(vdi=both), incident(vdi=BASE[:8]))))
    assert twins.total.disks == 3
    assert merged(("a", from_log(incident(), incident(vdi="1d994938-0aaa")))).total.disks == 2


def test_a_disk_without_an_sr_is_the_one_that_its_host_saw():
    seen = from_log(incident(how=outcome("refused", "in-use")), incident(vdi=BASE[:8], sr=None))
    assert merged(("a", seen)).total.disks == 1
    elsewhere = merged(("a", from_log(incident())), ("b", from_log(incident(vdi=BASE[:8], sr=None))))
    assert elsewhere.total.disks == 2
    assert None in elsewhere.srs
    whole = merged(("a", from_log(incident())), ("b", from_log(incident(sr=None))))
    assert told(whole) == [(BASE, SR, "reported")]


def test_disks_without_a_name_are_told_apart_by_host_and_path():
    named = check(("/x/1.vhd", "invalid"), ("/x/2.vhd", "invalid"))
    assert merged(("a", named), ("b", named), ("a", named)).total.disks == 4


def test_images_are_counted_once():
    first = check((path_of(BASE, SHARED), "valid"), (path_of(OTHER, SHARED), "invalid"))
    second = check((path_of(OTHER, SHARED), "invalid"), (path_of(LEAF, SR), "in-use"))
    picture = merged(("a", first), ("b", second))
    assert picture.images_of == {SHARED: 2, SR: 1}
    assert picture.total.disks == 1


def test_a_status_nobody_knows_is_left():
    document = from_log(incident(how=outcome()))
    document["incidents"][0]["outcome"]["status"] = "brand-new"
    picture = merged(("a", document))
    assert (picture.disks[0].group, picture.exit) == ("left", 4)


def sample(**options):
    return from_log(incident(how=outcome(**options)))


def test_one_hosts_strongest_view_is_its_view():
    picture = merged(("a", check((path_of(BASE), "invalid"))), ("a", sample()), ("a", sample(status="refused")))
    assert [dict(view.statuses) for view in picture.views] == [{"repaired": 1}]


def test_exit_bits():
    silent = ("x", error("unreachable"))
    assert merged(("a", sample())).exit == 1
    assert merged(("a", sample(status="valid"))).exit == 0
    assert merged(("a", sample(status="failed"))).exit == 12
    assert merged(("a", sample()), silent).exit == 9
    picture = merged(("a", sample()))
    picture.refuse("b", "it is empty")
    assert picture.exit == 9
    assert [host.name for host in picture.in_trouble] == ["b"]


def test_the_most_urgent_come_first():
    picture = merged(
        ("a", from_log(incident(how=outcome()), incident(vdi=LEAF, first_seen=None), incident(vdi=OTHER))),
    )
    assert [disk.told.vdi for disk in picture.disks] == [OTHER, LEAF, BASE]


def test_a_bug_report_names_its_hosts_itself():
    picture = Picture()
    picture.take("archive", Said("bug-report", (Sight(BASE, SR, None, "reported", host="inner"),)))
    assert [host.name for host in picture.hosts] == ["archive", "inner"]
    assert picture.views[1].disks == 1


def test_what_is_beyond_a_bound_is_counted(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_DISKS", 1)
    monkeypatch.setattr(pictures, "MOST_HOSTS", 2)
    monkeypatch.setattr(pictures, "MOST_IMAGES", 1)
    picture = merged(
        ("a", from_log(incident(), incident(vdi=OTHER), incident())),
        ("b", check((path_of(BASE), "valid"), (path_of(OTHER), "valid"), (path_of(BASE), "valid"))),
        ("c", from_log(incident())),
    )
    picture.refuse("d", "why")
    picture.take("b", Said("bug-report", (Sight(BASE, SR, None, "reported", host="inner"),), left_out=1))
    assert picture.total.disks == 1
    assert picture.images_of == {SR: 1}
    assert picture.left_out == 1 + 1 + 1 + 1 + 1
    assert [host.name for host in picture.hosts] == ["a", "b"]


def test_views_of_one_disk_are_bounded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_VIEWS", 2)
    picture = merged(*((name, sample()) for name in "abc"))
    assert list(picture.disks[0].views) == [0, 1]
    picture.refuse("a", "why")
    for _ in range(9):
        picture.refuse("a", "why")
    assert len(picture.hosts[0].trouble) == pictures.MOST_TROUBLES
