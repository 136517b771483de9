"""The lung field of a chest CT, its sides, and who finds it. No torch unless lungmask is chosen.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_d2.lazy import export_lazily

if TYPE_CHECKING:
    from lung_d2.lungs.body import body_mask as body_mask
    from lung_d2.lungs.field import LungField as LungField
    from lung_d2.lungs.field import LungFinder as LungFinder
    from lung_d2.lungs.field import choose_finder as choose_finder
    from lung_d2.lungs.field import find_lungs as find_lungs

_EXPORTS = {
    "LungField": "lung_d2.lungs.field",
    "LungFinder": "lung_d2.lungs.field",
    "body_mask": "lung_d2.lungs.body",
    "choose_finder": "lung_d2.lungs.field",
    "find_lungs": "lung_d2.lungs.field",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
