"""What is measured of a slice, on squares and rings whose numbers are known by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY, Category
from lung_d2.ct import read_volume
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.quality.facts import measure_loads, measure_slice
from lung_d2.masks import Mask
from records import LUNG_HU, build_record, draw_chest
from tiny import ring, square

SIZE = 96
SPACING_MM = (0.5, 0.8)
NOWHERE = np.zeros((SIZE, SIZE), bool)
EVERYWHERE = ~NOWHERE


def lung_plane(noise_hu: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, noise_hu, (SIZE, SIZE))
    return np.rint(LUNG_HU + noise).astype(np.int16)


def item_of(
    plane: np.ndarray, *lesions: tuple[Category, Mask], lungs: Mask | None = EVERYWHERE, **others
) -> AnnotatedSlice:
    known = {"pixel_spacing_mm": SPACING_MM, "slice_index": 0} | others
    return AnnotatedSlice(plane=plane, instances=lesions, lungs=lungs, **known)


def contrast_of(plane: np.ndarray, mask: Mask, lungs: Mask | None = EVERYWHERE, *others: Mask) -> float | None:
    """Return the contrast of a lesion, beside other lesions."""
    lesions = [(GROUND_GLASS_OPACITY, one) for one in (mask, *others)]
    return measure_slice(item_of(plane, *lesions, lungs=lungs))["instances"][0]["contrast_hu"]


def hazy_plane(mask: Mask, hu: int = -450) -> np.ndarray:
    plane = lung_plane()
    plane[mask] = hu
    return plane


def test_area_is_in_pixels_and_mm2() -> None:
    lesion = measure_slice(item_of(lung_plane(), (BRONCHIECTASIS, square(SIZE, 10, 20, 5))))["instances"][0]
    assert (lesion["category_id"], lesion["area_px"]) == (BRONCHIECTASIS.coco_id, 25)
    assert lesion["area_mm2"] == pytest.approx(10.0)


def test_area_in_mm2_is_unknown_without_spacing() -> None:
    facts = measure_slice(item_of(lung_plane(), (BRONCHIECTASIS, square(SIZE, 10, 20, 5)), pixel_spacing_mm=None))
    assert facts["instances"][0]["area_mm2"] is None
    assert facts["lung_mm2"] is None
    assert facts["lung_px"] == SIZE * SIZE


def test_mean_hu_is_of_the_lesion_alone() -> None:
    mask = square(SIZE, 40, 40, 8)
    assert measure_slice(item_of(hazy_plane(mask), (GROUND_GLASS_OPACITY, mask)))["instances"][0]["mean_hu"] == -450


def test_haze_stands_out_by_its_density() -> None:
    mask = square(SIZE, 40, 40, 12)
    assert contrast_of(hazy_plane(mask), mask) == pytest.approx(400, abs=1)


def test_thin_wall_around_a_dark_lumen_is_evident() -> None:
    mask = square(SIZE, 40, 40, 12)
    plane = hazy_plane(mask, hu=-970)
    plane[ring(SIZE, 40, 40, 12, wall=1)] = -400
    contrast = contrast_of(plane, mask)
    assert contrast is not None
    assert contrast > 100


def test_wide_lumen_without_a_visible_wall_stands_out_by_its_dark() -> None:
    mask = square(SIZE, 40, 40, 20)
    assert contrast_of(hazy_plane(mask, hu=-990), mask) == pytest.approx(140, abs=1)


def test_noise_alone_is_no_contrast() -> None:
    contrast = contrast_of(lung_plane(noise_hu=40), square(SIZE, 40, 40, 12))
    assert contrast is not None
    assert contrast < 50


def test_other_lesions_are_no_surroundings() -> None:
    mask, around = square(SIZE, 40, 40, 12), ring(SIZE, 32, 32, 28, wall=8)
    plane = hazy_plane(mask | around)
    assert contrast_of(plane, mask, EVERYWHERE, around) == pytest.approx(400, abs=1)


def test_undecided_regions_are_no_surroundings() -> None:
    mask, undecided = square(SIZE, 40, 40, 12), ring(SIZE, 32, 32, 28, wall=8)
    plane = hazy_plane(mask | undecided)
    item = item_of(plane, (GROUND_GLASS_OPACITY, mask), undecided=undecided)
    assert measure_slice(item)["instances"][0]["contrast_hu"] == pytest.approx(400, abs=1)
    assert measure_slice(item)["undecided_px"] == np.count_nonzero(undecided)


def test_surroundings_end_after_10_mm() -> None:
    mask = square(SIZE, 40, 40, 12)
    plane = lung_plane()
    far = np.hypot(*(np.indices(plane.shape) - 46)) > 12 + 10 / 0.6
    plane[far], plane[mask] = -300, -450
    assert contrast_of(plane, mask) == pytest.approx(400, abs=1)


def test_contrast_is_unknown_without_lung_around() -> None:
    mask = square(SIZE, 40, 40, 12)
    assert contrast_of(hazy_plane(mask), mask, square(SIZE, 0, 0, 10)) is None
    assert contrast_of(hazy_plane(mask), mask, None) is None


def test_grey_levels_have_no_hu() -> None:
    mask = square(SIZE, 40, 40, 12)
    facts = measure_slice(item_of(np.where(mask, 200, 50).astype(np.uint8), (GROUND_GLASS_OPACITY, mask)))
    assert facts["instances"][0]["mean_hu"] is None
    assert facts["instances"][0]["contrast_hu"] is None
    assert facts["spine"] is None
    assert facts["levels"] == {"min": 50, "max": 200}


def test_share_in_the_lung() -> None:
    facts = measure_slice(
        item_of(
            lung_plane(),
            (GROUND_GLASS_OPACITY, square(SIZE, 0, 0, 10)),
            (BRONCHIECTASIS, square(SIZE, 50, 50, 4)),
            lungs=square(SIZE, 0, 5, 20),
        )
    )
    assert [lesion["in_lung"] for lesion in facts["instances"]] == [0.5, 0.0]
    assert (facts["lesion_px"], facts["lesion_in_lung_px"], facts["lung_px"]) == (116, 50, 400)
    assert facts["lung_mm2"] == pytest.approx(160.0)


def test_lung_is_unknown_where_nobody_found_it() -> None:
    facts = measure_slice(item_of(lung_plane(), (GROUND_GLASS_OPACITY, square(SIZE, 0, 0, 10)), lungs=None))
    assert facts["lung_px"] is None
    assert facts["lesion_in_lung_px"] is None
    assert facts["instances"][0]["in_lung"] is None


def test_overlapping_lesions_count_once_in_the_slice() -> None:
    lesions = [(GROUND_GLASS_OPACITY, square(SIZE, 0, 0, 10)), (BRONCHIECTASIS, square(SIZE, 0, 5, 10))]
    assert measure_slice(item_of(lung_plane(), *lesions))["lesion_px"] == 150


def test_tiny_parts_specks_and_empty_masks_are_counted() -> None:
    dotted = square(SIZE, 10, 10, 6) | square(SIZE, 30, 30, 1) | square(SIZE, 40, 40, 2)
    facts = measure_slice(
        item_of(lung_plane(), (GROUND_GLASS_OPACITY, dotted), (GROUND_GLASS_OPACITY, NOWHERE), specks=3)
    )
    assert (facts["tiny_parts"], facts["specks"], facts["empty_masks"]) == (1, 3, 1)
    assert len(facts["instances"]) == 1


def test_levels_tell_air_from_what_is_below() -> None:
    plane = np.full((10, 10), 40, np.int16)
    plane[0], plane[1], plane[2] = -2000, -1500, -1000  # padding, no matter, air
    levels = measure_slice(item_of(plane, lungs=None))["levels"]
    assert levels == {"min": -2000, "max": 40, "air": 0.1, "soft": 0.7, "below_air": 0.1}


@pytest.mark.parametrize(("turns", "row"), [(0, 1), (2, -1)])
def test_spine_is_where_the_bone_is(turns: int, row: int) -> None:
    spine = measure_slice(item_of(np.rot90(draw_chest()[0], turns), lungs=None))["spine"]
    assert spine[0] * row > 0.3
    assert abs(spine[1]) < 0.1


def thumbnail_of(plane: np.ndarray) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(measure_slice(item_of(plane, lungs=None))["thumbnail"]), np.uint8)


def test_thumbnail_does_not_tell_where_the_body_lies() -> None:
    plane = draw_chest(128)[0]
    larger = np.full((192, 192), -1000, np.int16)
    larger[10:138, 50:178] = plane
    first, second = thumbnail_of(plane), thumbnail_of(larger)
    assert np.corrcoef(first, second)[0, 1] > 0.99
    assert np.corrcoef(first, thumbnail_of(plane[::-1]))[0, 1] < 0.9


def test_plane_of_one_value_has_neither_thumbnail_nor_digest() -> None:
    facts = measure_slice(item_of(np.full((SIZE, SIZE), -1000, np.int16), lungs=None))
    assert (facts["thumbnail"], facts["digest"], facts["fingerprint"]) == ("", "", "")


def test_digest_is_of_every_pixel() -> None:
    plane = draw_chest()[0]
    other = plane.copy()
    other[0, 0] += 1
    digests = [measure_slice(item_of(one, lungs=None))["digest"] for one in (plane, plane.copy(), other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (5, 5)])
def test_odd_sizes_are_measured(shape: tuple[int, int]) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.int16).reshape(shape)
    item = item_of(plane, (GROUND_GLASS_OPACITY, np.ones(shape, bool)), lungs=np.ones(shape, bool))
    assert measure_slice(item)["lesion_px"] == plane.size


def test_facts_survive_json() -> None:
    plane, lungs = draw_chest()
    facts = measure_slice(item_of(plane, (GROUND_GLASS_OPACITY, lungs), lungs=lungs))
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts | {"spine": list(facts["spine"])}


def test_loads_add_up_by_patient_and_category() -> None:
    haze = item_of(lung_plane(), (GROUND_GLASS_OPACITY, square(SIZE, 10, 20, 5)))
    both = item_of(lung_plane(), *haze.instances, (BRONCHIECTASIS, square(SIZE, 40, 40, 10)))
    records = [build_record(haze, "a", "p"), build_record(both, "b", "p"), build_record(item_of(lung_plane()), "c")]
    loads = measure_loads(records)
    assert loads["p"].areas == pytest.approx({GROUND_GLASS_OPACITY.name: 20.0, BRONCHIECTASIS.name: 40.0})
    assert loads["c"].areas == {}


def test_loads_take_pixels_where_mm2_are_unknown() -> None:
    haze = item_of(lung_plane(), (GROUND_GLASS_OPACITY, square(SIZE, 10, 20, 5)))
    loads = measure_loads([build_record(replace(haze, pixel_spacing_mm=None), "a")])
    assert loads["a"].areas == {GROUND_GLASS_OPACITY.name: 25}


def test_real_chest_has_its_spine_at_the_bottom(data_root: Path) -> None:
    volume = read_volume(data_root / "ct_series" / "normal_case_2")
    rows = [measure_slice(item_of(plane, lungs=None))["spine"][0] for plane in volume.hu[::10]]
    assert np.median(rows) > 0.2
