"""host.naming: every form a path can have, and near misses of each."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix.sm.paths import ImageName, Life, VolumeName, is_prefix, is_uuid, read_path, volume_at

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
SR_DM = SR.replace("-", "--")
VDI_DM = VDI.replace("-", "--")
FOREIGN = ImageName(Life.FOREIGN)


@pytest.mark.parametrize("mount", ["/run/sr-mount", "/var/run/sr-mount", "/srv/a b", ""])
@pytest.mark.parametrize(
    ("rest", "life", "vdi"),
    [
        (f"{VDI}.vhd", Life.PLAIN, VDI),
        (f"OLD_{VDI}.vhd", Life.OLD, VDI),
        (f"DELETED_{VDI}.vhd", Life.DELETED, VDI),
        (f"{VDI}.vhd.new", Life.NEW, VDI),
        (f"tmpAb3_x9/{VDI}.vhd", Life.COPY, VDI),
        ("tmpAb3_x9/0.vhd", Life.COPY, None),
        ("tmpAb3_x9.vhd", Life.COPY, None),
    ],
)
def test_the_forms_of_a_file_sr(mount, rest, life, vdi):
    assert read_path(f"{mount}/{SR}/{rest}") == ImageName(life, SR, vdi, rest)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (f"/dev/VG_XenStorage-{SR}/VHD-{VDI}", ImageName(Life.PLAIN, SR, VDI, is_device=True)),
        (f"/dev/VG_XenStorage-{SR}/VHD-OLD_{VDI}", ImageName(Life.OLD, SR, VDI, is_device=True)),
        (
            f"/dev/mapper/VG_XenStorage--{SR_DM}-VHD--{VDI_DM}",
            ImageName(Life.PLAIN, SR, VDI, is_device=True),
        ),
        (f"/dev/drbd/by-res/xcp-volume-{VDI}/0", ImageName(Life.PLAIN, is_device=True)),
        (f"/dev/VG_XenStorage-{SR}/LV-{VDI}", ImageName(Life.FOREIGN, is_device=True)),
        (f"/dev/VG_XenStorage-{SR}/VHD-{VDI}/..", ImageName(Life.FOREIGN, is_device=True)),
        ("/dev/mapper/a--b", ImageName(Life.FOREIGN, is_device=True)),
        ("/dev/sda", ImageName(Life.FOREIGN, is_device=True)),
    ],
)
def test_the_forms_of_devices(path, wanted):
    assert read_path(path) == wanted


@pytest.mark.parametrize("name", [f"VHD-{VDI}", f"LV-{VDI}", "MGT", f"coalesce_{VDI}_1-2", "a--b"])
def test_a_volume_has_two_spellings(name):
    volume = VolumeName(SR, name)
    assert volume.path == f"/dev/VG_XenStorage-{SR}/{name}"
    assert volume.mapped == f"/dev/mapper/VG_XenStorage--{SR_DM}-{name.replace('-', '--')}"
    assert volume_at(volume.path) == volume_at(volume.mapped) == volume


@pytest.mark.parametrize(
    "path",
    [
        f"VG_XenStorage--{SR_DM}-VHD--{VDI_DM}",
        f"/dev/VG_XenStorage-{SR}",
        f"/dev/VG_XenStorage-{SR}/..",
        f"/dev/VG_XenStorage-{SR}/VHD-{VDI}/x",
        f"/dev/VG_XenStorage-{SR}/VG_XenStorage--{SR_DM}-VHD--{VDI_DM}",
        f"/dev/VG_XenStorage-{SR.upper()}/VHD-{VDI}",
        f"/dev/VG_Other-{SR}/VHD-{VDI}",
        f"/dev/mapper/VG_XenStorage-{SR}-VHD-{VDI}",
        f"/dev/mapper/VG_XenStorage--{SR_DM}-VHD--{VDI_DM}-real",
        f"/dev/mapper/x/VG_XenStorage--{SR_DM}-VHD--{VDI_DM}",
        f"/dev/mapper/VHD-{VDI}",
        "/dev/dm-3",
    ],
)
def test_what_is_no_volume_of_an_sr(path):
    assert volume_at(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/shadow",
        f"/run/sr-mount/{SR}/{VDI}.VHD",
        f"/run/sr-mount/{SR}/{VDI}.raw",
        f"/run/sr-mount/{SR}/{VDI}.vhd\n",
        f"/run/sr-mount/{SR}/../{SR}/{VDI}.vhd",
        f"/run/sr-mount/{SR}/./{VDI}.vhd",
        f"/run/sr-mount/{SR}/tmpab/{VDI}.raw",
        f"/run/sr-mount/{SR}/tmpwaytoolong9/0.vhd",
        f"/tmp/tmpab12cd34/{SR}",
    ],
)
def test_near_misses_say_nothing(path):
    assert read_path(path) == FOREIGN


def test_a_disk_outside_of_an_sr_still_says_its_name():
    assert read_path(f"/root/{VDI}.vhd") == ImageName(Life.PLAIN, None, VDI)
    assert read_path(f"/tmp/tmpab12cd34/OLD_{VDI}.vhd") == ImageName(Life.OLD, None, VDI)


def test_a_uuid_is_lower_case_and_whole():
    assert is_uuid(VDI)
    for wrong in (VDI.upper(), VDI[:-1], f"{VDI}\n", f" {VDI}", "../" + VDI, ""):
        assert not is_uuid(wrong)


@given(st.uuids(), st.integers(0, 36))
def test_a_prefix_has_eight_digits_and_its_dashes(value: uuid.UUID, length):
    text = str(value)
    assert is_prefix(text[:length]) == (length >= 8)
    assert is_prefix(f"OLD_{text[:length]}") == (length >= 4)


@pytest.mark.parametrize(
    "text",
    ["1d99493", "1d9949380", "1d994938-058e1", "1d994-38", "1d994938*", "1d994938/..", "", "-", "OLD_",
     "1D994938", "DELETED_1d994938", f"{VDI}0", f"{VDI}-", "1d994938\n"],
)  # fmt: skip
def test_what_is_no_prefix(text):
    assert not is_prefix(text)


@given(st.text(max_size=80))
def test_any_text_is_read(path):
    assert isinstance(read_path(path), ImageName)
