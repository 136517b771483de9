"""What an evaluation is of."""

from __future__ import annotations

import json

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_detections, make_truth, square
from lung_d2.evaluation.description import describe_results, describe_truth, without_nan

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
    described = describe_results(make_detections([(0, GGO, 0.25, MASK), (0, GGO, 0.75, MASK)]))
    assert described["detections"] == {"ground_glass_opacity": 2, "bronchiectasis": 0}
    assert (described["lowest_score"], described["highest_score"]) == (0.25, 0.75)


def test_results_without_detections_have_no_scores():
    described = describe_results(make_detections([]))
    assert (described["lowest_score"], described["highest_score"]) == (None, None)


def test_json_gets_null_for_nan():
    content = without_nan({"a": [1.5, float("nan")], "b": (float("inf"), "x", None)})
    assert json.dumps(content, allow_nan=False) == '{"a": [1.5, null], "b": [null, "x", null]}'
