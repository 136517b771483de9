from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from pycocotools.coco import COCO

from ct.dicom_files import PLANTED, write_series
from lung_d2 import Recognition, recognize
from lung_d2.data.annotations import encode_mask
from lung_d2.data.planes import write_plane
from lung_d2.engine import CTPredictor
from lung_d2.errors import InputError, OutputError
from lung_d2.lesions import SliceDetections
from tiny import square, tiny_cases, tiny_config, volume_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Give random weights; their scores are about 1/3, well above Detectron2's threshold of 0.05."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    torch.save({"model": build_model(tiny_config(folder, folder)).state_dict()}, folder / "model.pth")
    return folder / "model.pth"


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


def made(score=0.9):
    """Return a recognition of three slices with one detection, on slice 1."""
    mask = square(20, 5, 5, 6)
    one = SliceDetections(
        1,
        np.array([[5, 5, 11, 11]], np.float32),
        np.array([score], np.float32),
        np.array([1]),
        (encode_mask(mask),),
    )
    found = tuple(one if index == 1 else SliceDetections(index, *empty()) for index in range(3))
    hu = np.full((3, 20, 20), -800, np.int16)
    return Recognition(name="bb", planes=list(hu), detections=found, volume=volume_of(hu))


def empty():
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_volume_has_an_entry_for_each_slice(predictor, volume):
    recognition = recognize(volume, predictor)
    assert [found.slice_index for found in recognition.detections] == [0, 1, 2, 3]
    assert sum(map(len, recognition.detections)) > 0
    assert recognition.volume is volume
    assert recognition.name == volume.series_hash


def test_dicom_folder_is_read_and_named_by_a_hash(predictor, tmp_path):
    write_series(tmp_path, 3)
    recognition = recognize(tmp_path, predictor)
    assert len(recognition.detections) == len(recognition.planes) == 3
    assert len(recognition.name) == 16
    assert int(recognition.name, 16) >= 0


def test_chosen_series_is_read(predictor, tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), 1 + number, SeriesInstanceUID=f"1.2.{number}")
    assert len(recognize(tmp_path, predictor, series_uid="1.2.2").detections) == 3


def test_pictures_are_read_in_the_order_given(picture_predictor, tmp_path):
    paths = [tmp_path / name for name in ("b.png", "a.png")]
    for level, path in enumerate(paths):
        write_plane(np.full((40, 50), 100 + level, np.uint8), path)
    recognition = recognize(paths, picture_predictor)
    assert [int(plane[0, 0]) for plane in recognition.planes] == [100, 101]
    assert [found.slice_index for found in recognition.detections] == [0, 1]
    assert recognition.volume is None


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


def test_pictures_beside_a_series_are_left_alone(predictor, tmp_path):
    write_series(tmp_path, 3)
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    assert len(recognize(tmp_path, predictor).planes) == 3


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


def test_pictures_among_other_files_are_refused(picture_predictor, tmp_path):
    (series,) = write_series(tmp_path, 1)
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: a picture among other files"):
        recognize([series, tmp_path / "a.png"], picture_predictor)


def test_16_bit_picture_is_refused_by_name(picture_predictor, tmp_path):
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    write_plane(np.full((40, 50), -600, np.int16), tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: 16-bit pixels"):
        recognize([tmp_path / "a.png", tmp_path / "b.png"], picture_predictor)


def test_files_on_disk(tmp_path):
    folder = made().write(tmp_path)
    assert folder == tmp_path / "bb"
    assert files(tmp_path) == ["bb/detections.json", "bb/overlays/slice_0001.png", "bb/slices.json"]


def test_overlay_on_disk_is_the_picture_drawn(tmp_path):
    recognition = made()
    folder = recognition.write(tmp_path)
    written = cv2.imread(str(folder / "overlays" / "slice_0001.png"))[..., ::-1]
    assert np.array_equal(written, recognition.draw(recognition.detections[1]))


def test_pycocotools_loads_what_was_written(tmp_path):
    folder = made().write(tmp_path)
    loaded = COCO(str(folder / "slices.json")).loadRes(str(folder / "detections.json"))
    assert [loaded.anns[1][key] for key in ("image_id", "category_id", "bbox")] == [1, 1, [5, 5, 6, 6]]
    slices = json.loads((folder / "slices.json").read_text())["images"]
    assert [image["slice_position_mm"] for image in slices] == [0.0, 2.0, 4.0]
    assert [image["sop_instance_uid"] for image in slices] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]


def test_score_chooses_the_overlays_alone(tmp_path):
    folder = made(score=0.3).write(tmp_path, score=0.5)
    assert len(json.loads((folder / "detections.json").read_text())) == 1
    assert list((folder / "overlays").iterdir()) == []


def test_no_detection_is_an_empty_list_and_no_overlay(tmp_path):
    found = tuple(SliceDetections(index, *empty()) for index in range(3))
    recognition = Recognition("bb", made().planes, found, made().volume)
    folder = recognition.write(tmp_path)
    assert json.loads((folder / "detections.json").read_text()) == []
    assert files(folder) == ["detections.json", "slices.json"]


def test_failed_write_leaves_the_earlier_result(tmp_path, monkeypatch):
    made().write(tmp_path)
    before = (tmp_path / "bb" / "detections.json").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Recognition, "draw", fail)
    with pytest.raises(OutputError, match=r"bb: cannot be written \(disk full\)"):
        made(score=0.7).write(tmp_path)
    assert (tmp_path / "bb" / "detections.json").read_bytes() == before
    assert files(tmp_path / "bb") == ["detections.json", "overlays/slice_0001.png", "slices.json"]


def test_overlay_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("lung_d2.recognition.cv2.imwrite", lambda *_: False)
    with pytest.raises(OutputError, match=r"bb: cannot be written \(no picture of slice 1\)"):
        made().write(tmp_path)
    assert not (tmp_path / "bb").exists()


def test_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out: a file; expected a folder"):
        made().write(tmp_path / "out")


def test_write_that_is_killed_between_loses_nothing(tmp_path):
    made().write(tmp_path)
    (tmp_path / "bb").rename(tmp_path / ".bb.old")
    made(score=0.3).write(tmp_path)
    assert files(tmp_path) == ["bb/detections.json", "bb/slices.json"]


def test_what_a_killed_write_left_is_gone(tmp_path):
    (tmp_path / ".bb.partial" / "overlays").mkdir(parents=True)
    (tmp_path / ".bb.partial" / "overlays" / "slice_0002.png").touch()
    made().write(tmp_path)
    assert files(tmp_path) == ["bb/detections.json", "bb/overlays/slice_0001.png", "bb/slices.json"]


def test_second_write_replaces_all_of_the_first(tmp_path):
    made().write(tmp_path)
    made(score=0.3).write(tmp_path)
    assert files(tmp_path) == ["bb/detections.json", "bb/slices.json"]


def test_nothing_written_names_the_patient(predictor, tmp_path):
    write_series(tmp_path / "series", 3)
    recognize(tmp_path / "series", predictor).write(tmp_path / "out", score=0.0)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not any(word.encode() in everything for word in PLANTED)


@pytest.mark.parametrize(
    ("direction", "letters"), [((1, 0, 0), "RL"), ((-1, 0, 0), "LR"), ((0, 1, 0), "AP"), ((0, 0, -1), "HF")]
)
def test_sides_are_those_of_the_row_direction(direction, letters, monkeypatch):
    recognition = made()
    affine = np.eye(4)
    affine[:3, 0] = direction
    object.__setattr__(recognition.volume, "affine_lps", affine)
    drawn = {}
    monkeypatch.setattr("lung_d2.recognition.draw_overlay", lambda *_, **options: drawn.update(options))
    recognition.draw(recognition.detections[1])
    assert drawn["sides"] == letters
    assert drawn["caption"] == "slice 1 (0-2), 2.0 mm"
    assert drawn["pixel_spacing_mm"] == (0.7, 0.8)
