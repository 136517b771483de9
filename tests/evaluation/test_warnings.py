"""What a reader has to know before believing the figures."""

from __future__ import annotations

import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_case, perfect, square
from lung_d2.evaluation.froc import Froc
from lung_d2.evaluation.overlaps import measure_overlaps
from lung_d2.evaluation.warnings import find_warnings

LESION, AWAY = square(5, 5, 12), square(40, 40, 12)


def warn(slices, found):
    truth, detections = make_case(slices, found)
    froc = Froc(truth, detections, measure_overlaps(truth, detections))
    return "\n".join(warning.text for warning in find_warnings(truth, detections, froc))


def both(patient):
    """Return two slices of a patient with everything, and nothing."""
    return [Slice([(GGO, LESION), (BRONCHIECTASIS, AWAY)], patient=patient), Slice(patient=patient)]


def many_alarms(slices, count=17):
    return [(number, GGO, 0.5, AWAY) for number in range(len(slices)) for _ in range(count)]


MANY = [one for patient in "abcdefgh" for one in both(patient)]


def test_eight_patients_with_everything_raise_no_warning():
    assert warn(MANY, [*perfect(MANY), *many_alarms(MANY)]) == ""


@pytest.mark.parametrize(
    ("patients", "said"), [("abcdefg", "7 patients: intervals from fewer than 8"), ("a", "1 patient:")]
)
def test_few_patients_are_named(patients, said):
    assert said in warn([one for patient in patients for one in both(patient)], [])


def test_few_patients_of_a_category_are_named():
    slices = [*MANY[:14], Slice([(GGO, LESION)], patient="h"), Slice(patient="i")]
    said = warn(slices, many_alarms(slices))
    assert "Bronchiectasis in 7 patients only" in said
    assert "Ground glass" not in said


def test_category_without_lesions_is_named():
    assert "No lesion of bronchiectasis" in warn([Slice([(GGO, LESION)])], [])


def test_without_negatives_specificity_is_not_promised():
    assert "No slice without lesions" in warn(MANY[::2], [])
    assert "No slice without lesions" not in warn(MANY, [])


def test_no_detection_is_said():
    assert "The results hold no detection." in warn(MANY, [])


def test_scores_that_end_before_the_curve_are_said():
    said = warn(MANY, [*perfect(MANY), (0, GGO, 0.125, square(40, 5, 9))])
    assert "end at score 0.125, with 0.06 false positives per image" in said


def test_results_that_stop_in_the_middle_may_be_of_another_data_set():
    slices = [Slice([(GGO, LESION)], patient=f"p{number}") for number in range(40)]
    assert "last 20 of 40 slices of made_val" in warn(slices, perfect(slices)[:20])
    assert "of another data set" not in warn(slices, perfect(slices)[:31])


def test_more_detections_than_coco_takes_are_said():
    assert "more than 100 detections" in warn(MANY, many_alarms(MANY[:1], 101))
