from __future__ import annotations

import numpy as np
import pytest

from lung_d2.errors import InputError
from lung_d2.lesions import LOBES, LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES, build_lobe_field


@pytest.mark.parametrize("values", [LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES])
def test_lobes_are_taken_out_and_other_organs_dropped(values):
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[0, 0, 1:6] = sorted(values)
    labels[0, 0, 6:] = 51, 255
    assert build_lobe_field(labels, values).labels.tolist() == [[[0, 1, 2, 3, 4, 5, 0, 0]]]
    assert [values[value] for value in sorted(values)] == list(LOBES)


def test_the_right_lung_is_one_and_the_left_two():
    labels = np.arange(6, dtype=np.uint16).reshape(1, 1, 6)
    assert build_lobe_field(labels).lung_labels().tolist() == [[[0, 2, 2, 1, 1, 1]]]


def test_a_volume_without_lobes_is_refused():
    with pytest.raises(InputError, match="lobe labels: none of the values"):
        build_lobe_field(np.full((1, 2, 2), 7, np.uint8))


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="lobe 'lingula'"):
        build_lobe_field(np.ones((1, 2, 2), np.uint8), {1: "lingula"})
