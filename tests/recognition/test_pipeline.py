from __future__ import annotations

import cv2
import numpy as np
import pytest

from ct.dicom_files import write_series
from lung_d2 import recognize
from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.data.planes import write_plane
from lung_d2.engine import CTPredictor
from lung_d2.engine.lung_view import LungUse
from lung_d2.errors import InputError
from lung_d2.lesions import LinkSettings
from lung_d2.recognition import LabelFiles, RecognitionSettings
from recognition.chests import FAR, LESIONS, StandIn, write_chest, write_model
from recognition.test_fields import write_lobes
from tiny import tiny_cases, tiny_config, volume_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))[1]


@pytest.fixture(scope="module")
def predictor(weights):
    return CTPredictor(tiny_config(weights.parent, weights.parent, "MODEL.WEIGHTS", str(weights)))


@pytest.fixture(scope="module")
def picture_predictor(weights):
    opts = ("MODEL.WEIGHTS", str(weights), "INPUT.CT.GREY", "minmax_clahe")
    return CTPredictor(tiny_config(weights.parent, weights.parent, *opts))


@pytest.fixture(scope="module")
def volume():
    return volume_of(np.stack([item.plane for item in tiny_cases()[0].load()]))


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest")
    write_chest(folder)
    return read_volume(folder)


def test_volume_has_an_entry_for_each_slice(predictor, volume):
    recognition = recognize(volume, predictor)
    assert [found.slice_index for found in recognition.detections] == [0, 1, 2, 3]
    assert sum(map(len, recognition.detections)) > 0
    assert recognition.volume is volume
    assert recognition.name == volume.series_hash


def test_lesions_are_linked_and_measured(chest):
    recognition = recognize(chest, StandIn())
    haze, bronchus = recognition.lesions
    assert haze.slice_indices == (4, 5, 6, 7)
    assert bronchus.slice_indices == (5, 6)
    pixels = int(np.count_nonzero(LESIONS[0][1]))
    measured = recognition.measurements[0]
    assert measured.volume_ml == pytest.approx(4 * pixels * 6.0 * 3.5**2 / 1000)
    assert measured.side == "right"
    assert measured.mean_hu == pytest.approx(-500, abs=1)
    assert recognition.findings.totals["any"].lesion_count == 2
    assert recognition.findings.severity is None
    assert recognition.findings.ranges.lesions[1].upper_score == pytest.approx(0.6)


def test_stages_are_timed(chest):
    seconds = recognize(chest, StandIn()).seconds
    assert list(seconds) == ["read", "lungs", "network", "link", "measure"]
    assert all(value >= 0 for value in seconds.values())


def test_lungs_are_found_and_used(chest):
    predictor = StandIn()
    recognition = recognize(chest, predictor, RecognitionSettings(use=LungUse(crop=True)))
    ((lungs, use),) = predictor.calls
    assert lungs is recognition.lungs
    assert use.crop
    assert recognition.findings.settings.lung_margin_mm == 30
    assert recognition.findings.settings.lungs_from == "found in the CT"


def test_lobes_give_a_severity_score_and_places(chest, tmp_path):
    path = write_lobes(chest, tmp_path / "lobes.nii.gz")
    recognition = recognize(chest, StandIn(), RecognitionSettings(labels=LabelFiles(lobes=path)))
    assert recognition.findings.severity.total > 0
    assert sum(share.volume_ml for share in recognition.measurements[1].lobes) > 0
    assert recognition.findings.settings.lobes_from == "a label volume that was given"


def test_link_settings_are_heeded(chest):
    settings = RecognitionSettings(link=LinkSettings(0.85, 0.85))
    assert [lesion.category for lesion in recognize(chest, StandIn(), settings).lesions] == [GROUND_GLASS_OPACITY]


def test_lesion_outside_the_lungs_is_kept_by_the_link_that_the_predictor_keeps(chest):
    recognition = recognize(chest, StandIn([(range(4, 8), FAR, 0.9, GROUND_GLASS_OPACITY)]))
    assert [measured.side for measured in recognition.measurements] == [None]


def test_no_lesion_is_a_finding_too(chest):
    recognition = recognize(chest, StandIn([]))
    assert recognition.lesions == recognition.measurements == ()
    assert recognition.findings.totals["any"].volume_ml == 0


def test_model_is_identified_by_its_hashes(predictor, volume, weights):
    model = recognize(volume, predictor).model
    assert len(model.config_sha256) == len(model.weights_sha256) == 64
    assert model.device == "cpu"
    assert recognize(volume, StandIn([])).model.weights_sha256 == ""


def test_dicom_folder_is_read_and_named_by_a_hash(predictor, tmp_path):
    write_series(tmp_path, 3)
    recognition = recognize(tmp_path, predictor)
    assert len(recognition.detections) == len(recognition.planes) == 3
    assert len(recognition.name) == 16
    assert int(recognition.name, 16) >= 0


def test_chosen_series_is_read(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), 1 + number, SeriesInstanceUID=f"1.2.{number}")
    assert len(recognize(tmp_path, StandIn([]), series_uid="1.2.2").detections) == 3


def test_pictures_are_read_in_the_order_given(picture_predictor, tmp_path):
    paths = [tmp_path / name for name in ("b.png", "a.png")]
    for level, path in enumerate(paths):
        write_plane(np.full((40, 50), 100 + level, np.uint8), path)
    recognition = recognize(paths, picture_predictor)
    assert [int(plane[0, 0]) for plane in recognition.planes] == [100, 101]
    assert [found.slice_index for found in recognition.detections] == [0, 1]
    assert recognition.volume is recognition.lungs is recognition.findings is None
    assert recognition.lesions == recognition.measurements == ()


def test_one_picture_is_a_source(picture_predictor, tmp_path):
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    assert len(recognize(str(tmp_path / "a.png"), picture_predictor).detections) == 1


def test_picture_for_a_model_of_hu_is_refused(predictor, tmp_path):
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: no Hounsfield units"):
        recognize(tmp_path / "a.png", predictor)


def test_folder_of_pictures_is_read_by_name(picture_predictor, tmp_path):
    for level, name in enumerate(("b.png", "a.jpg", "c.bmp")):
        assert cv2.imwrite(str(tmp_path / name), np.full((40, 50), 100 + level, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [int(plane[0, 0]) for plane in recognize(tmp_path, picture_predictor).planes] == [101, 100, 102]


def test_pictures_beside_a_series_are_left_alone(tmp_path):
    write_series(tmp_path, 3)
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    assert len(recognize(tmp_path, StandIn([])).planes) == 3


def test_pictures_are_named_by_their_bytes(picture_predictor, tmp_path):
    names = []
    for folder, level in (("one", 100), ("two", 101), ("three", 100)):
        (tmp_path / folder).mkdir()
        write_plane(np.full((40, 50), level, np.uint8), tmp_path / folder / "a.png")
        names.append(recognize(tmp_path / folder / "a.png", picture_predictor).name)
    assert names[0] == names[2] != names[1]


@pytest.fixture
def neighbours_predictor(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "channels", "neighbours")
    return predictor


def test_picture_for_a_model_of_neighbours_is_refused(neighbours_predictor, tmp_path):
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*CHANNELS neighbours"):
        recognize(tmp_path / "a.png", neighbours_predictor)


def test_single_slice_for_a_model_of_neighbours_is_refused_before_the_progress_bar(
    neighbours_predictor, volume, capsys
):
    with pytest.raises(InputError, match=r"series 1\.2\.3, slice 0: no neighbouring slices"):
        recognize(volume_of(np.array(volume.hu[:1])), neighbours_predictor)
    assert "recognise" not in capsys.readouterr().err


def test_16_bit_picture_is_refused_by_name(picture_predictor, tmp_path):
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    write_plane(np.full((40, 50), -600, np.int16), tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: 16-bit pixels"):
        recognize([tmp_path / "a.png", tmp_path / "b.png"], picture_predictor)
