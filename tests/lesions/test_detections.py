from __future__ import annotations

import numpy as np
import pytest

from lung_d2.lesions import SliceDetections
from lung_d2.masks import encode_mask
from tiny import square


def detections(*scores):
    count = len(scores)
    return SliceDetections(
        slice_index=5,
        boxes=np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        scores=np.array(scores, np.float32),
        category_ids=np.arange(1, count + 1),
        masks=tuple(encode_mask(square(4, 0, 0, side)) for side in range(count)),
    )


def test_those_with_at_least_the_score_are_kept_whole():
    found = detections(0.75, 0.5, 0.25).above(0.5)
    assert (len(found), found.slice_index) == (2, 5)
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.category_ids.tolist() == [1, 2]
    assert found.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.masks == detections(0.75, 0.5, 0.25).masks[:2]


@pytest.mark.parametrize("found", [detections(), detections(0.2).above(0.5)])
def test_no_detection_is_a_slice_all_the_same(found):
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks == ()


def test_parts_of_different_length_are_refused():
    whole = detections(0.9, 0.8)
    with pytest.raises(AssertionError):
        SliceDetections(0, whole.boxes, whole.scores, whole.category_ids, whole.masks[:1])
