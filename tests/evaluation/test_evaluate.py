"""What an evaluation is of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from evaluation.samples import (
    BRONCHIECTASIS,
    GGO,
    Slice,
    make_case,
    make_detections,
    make_truth,
    perfect,
    random_case,
    square,
    to_dataset,
    to_results,
)
from lung_d2.categories import CATEGORIES
from lung_d2.errors import ConfigError
from lung_d2.evaluation.evaluate import EvaluationSettings, describe_results, describe_truth, evaluate, without_nan
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth import Source, read_truth
from lung_d2.masks import connected_components

MASK = square(0, 0, 9)


def test_truth_is_counted():
    slices = [
        Slice([(GGO, MASK), (GGO, square(20, 20, 5))], patient="a"),
        Slice([(BRONCHIECTASIS, MASK)], patient="a"),
        Slice(undecided=[(GGO, MASK)], patient="b"),
        Slice(patient="b", series="b2"),
    ]
    assert describe_truth(make_truth(slices)) == {
        "names": ["made_val"],
        "patients": 2,
        "series": 3,
        "slices": 4,
        "slices_without_lesions": 1,
        "lesions": {"ground_glass_opacity": 2, "bronchiectasis": 1},
        "undecided": {"ground_glass_opacity": 1, "bronchiectasis": 0},
    }


def test_results_are_counted():
    described = describe_results(make_detections([(0, GGO, 0.25, MASK), (0, GGO, 0.75, MASK)]), CATEGORIES)
    assert described["detections"] == {"ground_glass_opacity": 2, "bronchiectasis": 0}
    assert (described["lowest_score"], described["highest_score"]) == (0.25, 0.75)


def test_results_without_detections_have_no_scores():
    described = describe_results(make_detections([]), CATEGORIES)
    assert (described["lowest_score"], described["highest_score"]) == (None, None)


def test_json_gets_null_for_nan():
    content = without_nan({"a": [1.5, float("nan")], "b": (float("inf"), "x", None)})
    assert json.dumps(content, allow_nan=False) == '{"a": [1.5, null], "b": [null, "x", null]}'


FAST = EvaluationSettings(draws=50)


def patients(count, slices=3):
    """Make patients with both categories on their first slices, none on the last; all lesions above 100 pixels."""
    made = []
    for number in range(count):
        for index in range(slices):
            lesions = [(GGO, square(4 + index, 4, 16)), (BRONCHIECTASIS, square(40, 40 - index, 12))]
            made.append(
                Slice(lesions if index + 1 < slices else (), patient=f"p{number}", slice_index=index,
                      position_mm=2.0 * index)
            )  # fmt: skip
    return made


def run(slices, found, settings=FAST, against=None):
    others = None if against is None else make_detections(against)
    return evaluate(*make_case(slices, found), settings, others)


def flatten(nested, name=()):
    """Return the figures of all groups by their names."""
    if "value" in nested:
        return {name: nested}
    return {key: one for part, inner in nested.items() for key, one in flatten(inner, (*name, part)).items()}


def figures(content):
    return {
        name: figure
        for group, metric in content["metrics"].items()
        for name, figure in flatten(metric["figures"], (group,)).items()
    }


def values(content):
    return {name: figure["value"] for name, figure in figures(content).items()}


def test_truth_scores_as_high_as_can_be():
    slices = patients(3)
    found = values(run(slices, perfect(slices, score=1.0)))
    for name, value in found.items():
        if name[0] in ("coco", "lenient"):
            assert value is None or value == pytest.approx(100), name
        elif name[0] in ("froc", "slices") or name[1] == "dice":
            assert value == (0 if name[1] == "false_positives" else 1), name
        else:
            assert value == 0, name
    assert {name for name, value in found.items() if value is None} == {
        ("coco", task, metric, category)
        for task in ("bbox", "segm")
        for metric in ("APm", "APl")
        for category in ("all", "ground_glass_opacity", "bronchiectasis")
    }


def test_nothing_found_scores_0_under_the_same_names():
    slices = patients(3)
    content = run(slices, [])
    found = values(content)
    assert set(found) == set(values(run(slices, perfect(slices))))
    assert found["coco", "bbox", "AP", "all"] == found["coco", "segm", "AP", "all"] == 0
    assert found["lenient", "segm", "AP10", "bronchiectasis"] == 0
    assert found["froc", "slice_per_image", "all", "16"] == 0
    assert found["series", "dice", "ground_glass_opacity"] == 0
    assert found["series", "relative_volume_error", "ground_glass_opacity"] == -1
    assert [found["slices", kind, "all"] for kind in ("sensitivity", "specificity", "auc")] == [0, 1, 0.5]
    assert found["calibration", "ece", "all"] is None
    assert "The results hold no detection." in content["warnings"]


def test_content_is_strict_json():
    content = run([Slice([(GGO, square(0, 0, 9))])], [])
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def read(folder, dataset, results):
    folder.mkdir()
    (folder / "val.json").write_text(json.dumps(dataset))
    (folder / "results.json").write_text(json.dumps(results))
    truth = read_truth([Source("made_val", folder / "val.json", folder)])
    return evaluate(truth, read_results([folder / "results.json"], truth), EvaluationSettings(draws=0))


def test_shuffled_ids_and_orders_change_nothing(tmp_path):
    slices, found = random_case(3)
    dataset, results = to_dataset(slices), to_results(make_detections(found))
    plain = read(tmp_path / "plain", dataset, results)
    rng = np.random.default_rng(0)
    new_id = dict(zip(range(1, len(slices) + 1), rng.permutation(1000)[: len(slices)].tolist(), strict=True))
    images = [one | {"id": new_id[one["id"]]} for one in dataset["images"]]
    annotations = [
        one | {"id": int(number), "image_id": new_id[one["image_id"]]}
        for one, number in zip(dataset["annotations"], rng.permutation(len(dataset["annotations"])), strict=True)
    ]
    moved = [one | {"image_id": new_id[one["image_id"]]} for one in results]
    for listed in (images, annotations, moved):
        rng.shuffle(listed)
    shuffled = read(tmp_path / "shuffled", dataset | {"images": images, "annotations": annotations}, moved)
    before, after = values(plain), values(shuffled)
    assert list(before) == list(after)
    assert [value for value in after.values() if value is not None] == pytest.approx(
        [value for value in before.values() if value is not None]
    )
    assert 10 < before["lenient", "segm", "AP10", "all"] < 90


def test_same_seed_gives_the_same_intervals():
    slices, found = random_case(4)
    assert run(slices, found) == run(slices, found)
    other = run(slices, found, EvaluationSettings(draws=50, seed=1))
    assert values(other) == values(run(slices, found))
    assert figures(other) != figures(run(slices, found))


def test_figures_have_intervals_and_patients():
    slices, found = random_case(4)
    for name, figure in figures(run(slices, found, EvaluationSettings(draws=200))).items():
        if figure["value"] is None or name[2] in ("APm", "APl"):
            continue
        assert figure["low"] <= figure["high"], name
        assert figure["patients"] in range(2, 7), name


def test_without_draws_there_are_no_intervals():
    slices, found = random_case(4)
    content = run(slices, found, EvaluationSettings(draws=0), against=found)
    assert all(figure["low"] is None for figure in figures(content).values())
    assert content["comparison"]["metrics"]["coco"]["figures"]["segm"]["AP"]["all"]["p"] is None


def noisy(slices, seed, share):
    """Find each lesion with this probability, a little beside it, and a false alarm on half of the slices."""
    rng = np.random.default_rng(seed)
    found = []
    for number, category, _, mask in perfect(slices):
        if rng.random() < share:
            found.append((number, category, 0.5 + rng.random() / 2, np.roll(mask, int(rng.integers(3)), 0)))
    for number in range(len(slices)):
        if rng.random() < 0.5:
            found.append((number, GGO, float(rng.random()), square(int(rng.integers(40)), 25, 9)))
    return found


def compared(content, *name):
    inner = content["comparison"]["metrics"][name[0]]["figures"]
    for part in name[1:]:
        inner = inner[part]
    return inner


HEADLINE = (
    ("coco", "segm", "AP50", "all"),
    ("lenient", "segm", "AP10", "all"),
    ("froc", "slice_per_image", "all", "1"),
    ("series", "dice", "ground_glass_opacity"),
)


def test_planted_difference_is_found():
    slices = patients(12)
    content = run(slices, noisy(slices, 0, 0.9), EvaluationSettings(draws=200), against=noisy(slices, 1, 0.5))
    for name in HEADLINE:
        found = compared(content, *name)
        assert found["difference"] == pytest.approx(found["value"] - found["against"])
        assert (found["difference"] > 0, found["low"] > 0, found["p"] < 0.01) == (True, True, True), name


def test_null_difference_is_not_found():
    slices = patients(12)
    content = run(slices, noisy(slices, 2, 0.7), EvaluationSettings(draws=200), against=noisy(slices, 3, 0.7))
    for name in HEADLINE:
        found = compared(content, *name)
        assert found["low"] < 0 < found["high"], name
        assert found["p"] > 0.05, name


def test_results_do_not_differ_from_themselves():
    slices, found = random_case(5)
    content = run(slices, found, against=found)
    found = compared(content, "coco", "segm", "AP", "all")
    assert (found["difference"], found["low"], found["high"], found["p"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("name", [("series", "dice", "ground_glass_opacity"), ("calibration", "ece", "all")])
def test_comparison_the_other_way_round_is_the_same_but_for_its_sign(name):
    """Each result has false positives on two patients whom the other leaves in peace: it rests on all four."""
    slices = [Slice(patient=patient) for patient in "abcd"]
    one, other = ([(number, GGO, 0.7, square(30, 30, 9)) for number in numbers] for numbers in ((0, 1), (2, 3)))
    truth = make_truth(slices)
    there = figure_of(evaluate(truth, make_detections(one), FAST, make_detections(other))["comparison"], *name)
    back = figure_of(evaluate(truth, make_detections(other), FAST, make_detections(one))["comparison"], *name)
    assert (there["patients"], there["p"], there["difference"]) == (4, back["p"], -back["difference"])


def figure_of(comparison, group, *path):
    figure = comparison["metrics"][group]["figures"]
    for part in path:
        figure = figure[part]
    return figure


def test_stated_rate_of_false_positives_has_a_threshold():
    slices = patients(3)
    content = run(slices, perfect(slices), EvaluationSettings(draws=0, false_positive_rates=(3.0,)))
    assert content["settings"]["false_positive_rates"] == [3.0]
    assert content["metrics"]["froc"]["curves"]["slice_per_series"]["all"]["thresholds"]["3"] == 0.0
    for rate in (0, -1.0, float("inf"), float("nan"), 1.0000004):
        with pytest.raises(ConfigError, match="false positives"):
            EvaluationSettings(false_positive_rates=(rate,))


def test_comparison_is_null_without_other_results():
    assert run(patients(1), [])["comparison"] is None


@pytest.mark.parametrize("found", [[], [(0, GGO, 0.5, square(0, 0, 9))]])
def test_others_without_detections_can_be_compared(found):
    content = run(patients(2), found, against=[])
    assert compared(content, "coco", "segm", "AP", "all")["against"] == 0


def test_score_threshold_is_that_of_dice_and_calls():
    slices = patients(2)
    found = perfect(slices, score=0.4)
    low, high = (values(run(slices, found, EvaluationSettings(one, 0))) for one in (0.4, 0.5))
    for name in (("series", "dice", "bronchiectasis"), ("slices", "sensitivity", "all")):
        assert (low[name], high[name]) == (1, 0)
    assert low["coco", "segm", "AP", "all"] == high["coco", "segm", "AP", "all"]


@pytest.mark.parametrize(
    "wrong", [{"score_threshold": 1.5}, {"score_threshold": float("nan")}, {"draws": -1}, {"seed": -1}]
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigError, match="correct it"):
        EvaluationSettings(**wrong)


def read_masks(data_root, count=12):
    """Read slices of one real volume with their connected lesions, 256 x 256 made 64 x 64."""
    rows = (data_root / "covid_slices" / "split.csv").read_text().splitlines()[1:]
    volume = next(row for row in rows if row.endswith("val")).split(",")[1]
    files = [row.split(",")[0] for row in rows if row.split(",")[1] == volume][:count]
    for index, name in enumerate(files):
        mask = np.asarray(Image.open(data_root / "covid_slices" / "covid" / name))[::4, ::4] > 127
        lesions = [(GGO, part) for part in connected_components(mask)]
        yield Slice(lesions, patient=volume, slice_index=index, spacing_mm=None)


def test_real_masks_score_as_high_as_can_be_and_lower_when_they_are_moved(data_root):
    slices = list(read_masks(data_root))
    assert sum(len(one.lesions) for one in slices) > 10
    moved = [(number, category, score, np.roll(mask, 1, 1)) for number, category, score, mask in perfect(slices)]
    right, beside = values(run(slices, perfect(slices))), values(run(slices, moved))
    assert right["coco", "segm", "AP", "all"] == pytest.approx(100)
    assert right["froc", "series_per_series", "all", "0.125"] == right["series", "dice", "ground_glass_opacity"] == 1
    for name in (("coco", "segm", "AP", "all"), ("series", "dice", "ground_glass_opacity")):
        assert 0 < beside[name] < right[name]
    assert beside["coco", "segm", "AP", "all"] < beside["lenient", "segm", "AP10", "all"]
