"""Every kind of damage, in the order of the report."""

from __future__ import annotations

from matrix import kinds_data, kinds_fixed, kinds_footer, kinds_meta
from matrix.damage import FAMILIES, Kind

KINDS: tuple[Kind, ...] = tuple(
    kind
    for family in FAMILIES
    for kind in (*kinds_footer.KINDS, *kinds_meta.KINDS, *kinds_data.KINDS, *kinds_fixed.KINDS)
    if kind.family == family
)
