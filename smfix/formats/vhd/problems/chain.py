"""The chain: VHD5xx. The parent that a differencing image names, compared with the one that is found.

A finding here is no damage of this image: it may remain after a repair.

Source: ``vhd_util_check_parent_locators``, ``vhd_util_check_validate_parent_locator`` (blktap).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from smfix.formats.problem import ERROR, REPORT, Context, Detection, Problem
from smfix.formats.vhd.image import Locator, VhdImage
from smfix.formats.vhd.problems.orphan_blocks import block_limit
from smfix.formats.vhd.structs import NULL_UUID, PATH_CODES, Header, PlatformCode
from smfix.values import Sound, uuid_text


def _differencing(image: VhdImage) -> Header | None:
    if image.footer is None or not image.footer.is_differencing or not isinstance(image.header, Sound):
        return None
    return image.header.value


def _locator_why(image: VhdImage, locator: Locator) -> str | None:
    entry = locator.entry
    if entry.data_offset == 0:
        return "invalid data offset"
    if entry.data_space == 0:
        return "invalid data space"
    if entry.data_length == 0:
        return "invalid data length"
    if entry.extent.end > block_limit(image):
        return "invalid size"
    return "invalid reserved bits" if entry.reserved else None


def _detect_locator(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _differencing(image)
    if header is None:
        return
    used = {locator.index: locator for locator in image.locators}
    for index, entry in enumerate(header.locators):
        why = _locator_why(image, used[index]) if index in used else None
        if entry.code == PlatformCode.NONE and any(entry.encode()):
            why = "non-zero locator"
        if why is not None:
            yield Detection({"index": index, "why": why}, f"invalid parent locator {index}: {why}")


def _detect_duplicate(image: VhdImage, context: Context) -> Iterator[Detection]:
    if _differencing(image) is None:
        return
    for code, count in Counter(locator.entry.code for locator in image.locators).items():
        if count > 1:
            index = [loc.index for loc in image.locators if loc.entry.code == code][1]
            check = f"duplicate platform code in locator {index}: 0x{code:x}"
            yield Detection({"index": index, "code_hex": f"0x{code:x}"}, check)


def _detect_unreadable(image: VhdImage, context: Context) -> Iterator[Detection]:
    if _differencing(image) is None:
        return
    for locator in image.locators:
        if locator.entry.code in PATH_CODES and locator.path is None and _locator_why(image, locator) is None:
            yield Detection({"index": locator.index}, f"error reading parent locator {locator.index}: -22")


def _basename(path: str) -> str:
    """As POSIX's ``basename``: of nothing it is ``.``, and a slash at the end does not count."""
    return path.rstrip("/").rsplit("/", 1)[-1] or path[:1] or "."


def _detect_name(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _differencing(image)
    if header is None:
        return
    name = header.parent_name_text()
    for locator in image.locators:
        if locator.path is None or name is None:
            continue
        base = _basename(locator.path)
        if base != name:
            check = f"parent locator {locator.index} name ({base}) does not match header name ({name})"
            yield Detection({"index": locator.index, "base": base, "name": name}, check)


def _detect_missing(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _differencing(image)
    if header is None:
        return
    if not any(locator.entry.code in PATH_CODES for locator in image.locators):
        yield Detection({"what": "no parent locator names it"}, f"could not find parent {header.parent_name_text()}")
    elif context.parent is not None and context.parent.uuid is None and header.parent_uuid != NULL_UUID:
        where = context.parent.path or "any place its locators name"
        path = next((loc.path for loc in image.locators if loc.path), "")
        what = f"nothing readable is at {where}"
        if context.parent.outside:
            what = f"{', '.join(context.parent.outside)} is no place of its SR, and was not opened"
        yield Detection({"what": what}, f"error resolving {path}: -2")


def _detect_other(image: VhdImage, context: Context) -> Iterator[Detection]:
    header = _differencing(image)
    if header is None or context.parent is None or context.parent.uuid is None:
        return
    if header.parent_uuid not in (NULL_UUID, context.parent.uuid):
        facts = {
            "path": context.parent.path,
            "wanted": uuid_text(header.parent_uuid),
            "found": uuid_text(context.parent.uuid),
        }
        yield Detection(facts, f"invalid parent {context.parent.path}: invalid parent uuid")


def _detect_astray(image: VhdImage, context: Context) -> Iterator[Detection]:
    if _differencing(image) is None or context.parent is None:
        return
    for locator in image.locators:
        if locator.path in context.parent.astray:
            facts = {"index": locator.index, "named": locator.path, "path": context.parent.path}
            yield Detection(facts, f"error resolving {locator.path}: -2")


_RELINK = "Find the parent (`smfix check --parents`); relink only with the storage manager's own tools."

ROWS = (
    Problem(
        "VHD502",
        "parent locator invalid",
        "Parent locator {index} is not usable: {why}.",
        ERROR,
        REPORT,
        _detect_locator,
        means="Tools that follow this locator do not find the parent. This disk's own data is where it was.",
        why="The locator was overwritten, or a foreign tool wrote it.",
        advice=_RELINK,
        source="vhd_util_check_validate_parent_locator",
        may_remain=True,
    ),
    Problem(
        "VHD503",
        "parent locator twice",
        "Parent locator {index} repeats platform code {code_hex}.",
        ERROR,
        REPORT,
        _detect_duplicate,
        means="It is not certain which parent is meant. This disk's own data is where it was.",
        why="A tool wrote a locator without clearing the old one.",
        advice=_RELINK,
        source="vhd_util_check_parent_locators: duplicate platform code",
        may_remain=True,
    ),
    Problem(
        "VHD504",
        "parent locator not readable",
        "Parent locator {index} holds no path that can be decoded.",
        ERROR,
        REPORT,
        _detect_unreadable,
        means="Tools that follow this locator do not find the parent. This disk's own data is where it was.",
        why="The locator's data was overwritten, or is in an encoding that libvhd does not read.",
        advice=_RELINK,
        source="vhd_parent_locator_read",
        may_remain=True,
    ),
    Problem(
        "VHD505",
        "parent names disagree",
        "Parent locator {index} names {base!r}, the header names {name!r}.",
        ERROR,
        REPORT,
        _detect_name,
        means="Tools may open the wrong parent, or none. This disk's own data is where it was.",
        why="The disk was relinked by a tool that updated only one of the two.",
        advice=_RELINK,
        source="vhd_util_check_parent_locators: does not match header name",
        may_remain=True,
    ),
    Problem(
        "VHD501",
        "parent missing",
        "The parent of this disk is not found: {what}.",
        ERROR,
        REPORT,
        _detect_missing,
        means="Whatever this disk did not write itself cannot be read until the parent is back.",
        why="The parent was deleted, renamed or lies in an SR that is not attached here. This disk itself is intact.",
        advice="Attach or restore the parent; do not detach or coalesce this disk meanwhile.",
        source="vhd_util_check_parent_locators; vhd_find_parent",
        may_remain=True,
    ),
    Problem(
        "VHD506",
        "another disk stands where the parent should",
        "The file at {path} has UUID {found}; this disk's parent is {wanted}.",
        ERROR,
        REPORT,
        _detect_other,
        means="Read through that file, the guest's disk would be a mixture of two disks.",
        why="The parent's UUID was changed by a repair of a null UUID, or another file was put in its place.",
        advice=_RELINK,
        source="vhd_util_check_validate_parent: invalid parent uuid",
        may_remain=True,
    ),
    Problem(
        "VHD507",
        "parent locator leads nowhere",
        "Parent locator {index} leads to {named!r}, where nothing is; another one leads to {path}.",
        ERROR,
        REPORT,
        _detect_astray,
        means=(
            "The disk reads correctly, because another locator leads to its parent. `vhd-util check` refuses it, and "
            "its chain is not coalesced."
        ),
        why="The locator was overwritten, or a tool that moved the parent updated only some of them.",
        advice="No data is missing. Relink the disk, if at all, with the storage manager's own tools.",
        source="vhd_util_check_parent_locators: error resolving; vhd_parent_locator_get tries the next one",
        may_remain=True,
    ),
)
