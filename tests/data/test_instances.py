from __future__ import annotations

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.instances import (
    COMPONENTS,
    COMPONENTS_3D,
    VALUES,
    InstanceRule,
    Region,
    annotate_slice,
    annotate_volume,
)
from lung_d2.data.labels import Label
from lung_d2.errors import ConfigError
from tiny import SPACING_MM, ring, square, volume_of

PLANE = np.zeros((16, 16), np.int16)
GGO, BRONCHUS = GROUND_GLASS_OPACITY, BRONCHIECTASIS


def annotate(*regions, kind=COMPONENTS, min_area_mm2=0.0, spacing=None):
    return annotate_slice(PLANE, regions, InstanceRule(kind, min_area_mm2), 3, pixel_spacing_mm=spacing)


def found(item):
    return [(category.name, int(mask.sum())) for category, mask in item.instances]


def test_components_of_a_slice_are_what_touches_whatever_the_source_calls_them():
    touching = [Region(GGO, square(16, 0, 0, 3), "a"), Region(GGO, square(16, 0, 3, 3), "b")]
    assert found(annotate(*touching, Region(GGO, square(16, 10, 10, 2)))) == [
        ("ground_glass_opacity", 18),
        ("ground_glass_opacity", 4),
    ]


def test_values_are_what_the_source_tells_apart():
    regions = [
        Region(GGO, square(16, 0, 0, 3), "a"),
        Region(GGO, square(16, 0, 3, 3), "b"),
        Region(GGO, square(16, 10, 10, 2), "a"),
        Region(GGO, square(16, 14, 14, 1)),
        Region(GGO, square(16, 14, 0, 1)),
    ]
    assert [size for _, size in found(annotate(*regions, kind=VALUES))] == [13, 9, 1, 1]


def test_categories_may_overlap_and_holes_stay():
    wall = ring(16, 2, 2, 8)
    item = annotate(Region(BRONCHUS, wall), Region(GGO, square(16, 0, 0, 12)))
    assert found(item) == [("ground_glass_opacity", 144), ("bronchiectasis", int(wall.sum()))]
    assert np.array_equal(item.instances[1][1], wall)


def test_specks_are_left_out_by_area_and_counted():
    regions = [Region(GGO, square(16, 0, 0, 3)), Region(GGO, square(16, 8, 8, 2)), Region(GGO, square(16, 14, 0, 1))]
    by_area = annotate(*regions, min_area_mm2=2.5, spacing=SPACING_MM)  # 0.56 mm2 a pixel: 5.04, 2.24, 0.56
    assert ([size for _, size in found(by_area)], by_area.specks) == ([9], 2)
    by_pixels = annotate(*regions, min_area_mm2=4)
    assert ([size for _, size in found(by_pixels)], by_pixels.specks) == ([9, 4], 1)


def test_undecided_is_where_nothing_else_is_said():
    item = annotate(
        Region(Label.IGNORE, square(16, 0, 0, 16)),
        Region(GGO, square(16, 0, 0, 4)),
        Region(Label.BACKGROUND, square(16, 8, 8, 4)),
    )
    assert found(item) == [("ground_glass_opacity", 16)]
    assert item.undecided is not None
    assert int(item.undecided.sum()) == 256 - 16 - 16
    assert not item.undecided[0, 0]
    assert not item.undecided[8, 8]


def test_background_alone_leaves_nothing_undecided():
    assert annotate(Region(Label.BACKGROUND, square(16, 0, 0, 4))).undecided is None


def test_components_of_a_volume_may_have_several_parts_in_a_slice():
    volume = volume_of(np.full((3, 16, 16), -800, np.int16))
    legs = [Region(GGO, square(16, 2, 2, 2)), Region(GGO, square(16, 2, 10, 2))]
    bridge = np.zeros((16, 16), bool)
    bridge[2:4, 2:12] = True
    apart = Region(GGO, square(16, 12, 12, 2))
    slices = [legs, [Region(GGO, bridge)], [apart]]
    in_3d = list(annotate_volume(volume, lambda index: slices[index], InstanceRule(COMPONENTS_3D)))
    assert [found(item) for item in in_3d] == [
        [("ground_glass_opacity", 8)],
        [("ground_glass_opacity", 20)],
        [("ground_glass_opacity", 4)],
    ]
    in_2d = list(annotate_volume(volume, lambda index: slices[index], InstanceRule(COMPONENTS)))
    assert [len(item.instances) for item in in_2d] == [2, 1, 1]


def test_slices_of_a_volume_have_its_geometry():
    volume = volume_of(np.arange(2 * 16 * 16, dtype=np.int16).reshape(2, 16, 16))
    first, second = annotate_volume(volume, lambda _: [], InstanceRule())
    assert np.array_equal(second.plane, volume.hu[1])
    assert (second.slice_index, second.slice_position_mm, second.pixel_spacing_mm) == (1, 2.0, SPACING_MM)
    assert first.instances == ()
    assert first.lungs is not None
    assert first.lungs.shape == (16, 16)


@pytest.mark.parametrize(
    ("kind", "area", "said"),
    [
        ("blobs", 0.0, "--instances blobs"),
        (COMPONENTS, -1.0, "--min-area-mm2 -1"),
        (COMPONENTS, float("nan"), "--min-area-mm2 nan"),
    ],
)
def test_rule_that_means_nothing_is_refused_by_its_option(kind, area, said):
    with pytest.raises(ConfigError, match=f"^{said}: "):
        InstanceRule(kind, area)
