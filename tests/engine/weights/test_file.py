"""Weights files of any origin: whatever is wrong with one is a line, and nothing of it runs or fills the memory."""

from __future__ import annotations

import json
import struct
import time

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.utils.file_io import PathManager

from engine.weights_samples import PROVENANCE, read_texts, rewrite, write_weights
from lung_d2.categories import CATEGORIES
from lung_d2.config.keys import add_lung_config
from lung_d2.config.loading import parse_config
from lung_d2.engine import CTPredictor, LungCheckpointer
from lung_d2.engine.weights.file import bound_settings, check_trusted, config_of, portable_config, read_weights_file
from lung_d2.errors import CheckpointError
from tiny import tiny_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


def refuse(path, match, load=read_weights_file):
    """Assert that a file is refused by one line that names it."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "load",
    [
        CTPredictor.from_weights,
        config_of,
        lambda path: LungCheckpointer(torch.nn.Linear(2, 2)).load(str(path)),
        lambda path: PathManager.get_local_path(f"lung_d2://{path}"),
    ],
)
def test_every_way_in_checks(weights, tmp_path, load):
    odd = rewrite(weights, tmp_path / "odd.safetensors", lambda texts, _: texts.update({"lung_d2.config": "A: 1"}))
    refuse(odd, "lung_d2.config: .*nothing in it ran", load)


def test_file_tells_what_it_holds(weights):
    file = read_weights_file(weights)
    assert file.provenance == PROVENANCE
    assert file.settings["MODEL.RESNETS.NORM"] == "GN"
    assert json.loads(read_texts(weights)["lung_d2.input"])["INPUT.CT.WINDOW_WIDTH"] == 1500
    assert json.loads(read_texts(weights)["lung_d2.categories"]) == CATEGORIES.to_coco()
    assert file.categories == CATEGORIES
    assert {name: tuple(value.shape) for name, value in file.read_tensors().items()} == file.shapes


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 0),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 90 << 20) + b"{" * 1000,
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xfe",
        b"not a file of safetensors at all, but text",
    ],
)
def test_broken_header_is_refused(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    refuse(path, "nothing in it ran")


def with_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 33, 1 << 33], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "X99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32"},
    ],
)
def test_tensor_that_is_not_there_is_refused(tmp_path, entry):
    refuse(with_header(tmp_path / "odd.safetensors", {"w": entry}, b"\0" * 4), "broken .*nothing in it ran")


def test_nested_header_is_refused(tmp_path):
    refuse(with_header(tmp_path / "deep.safetensors", b"[" * 1_000_000), "nothing in it ran")


def test_other_tools_file_is_told_apart(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    refuse(with_header(tmp_path / "other.safetensors", {"w": entry}, b"\0" * 4), "not weights of lung_d2; .*format 1")


@pytest.mark.parametrize("lost", [1, 1000, 8_000_000])
def test_truncated_file_is_refused(weights, tmp_path, lost):
    path = tmp_path / "short.safetensors"
    path.write_bytes(weights.read_bytes()[:-lost])
    refuse(path, "nothing in it ran")


def test_changed_number_is_refused_by_the_digest_beside(weights, tmp_path):
    path = tmp_path / weights.name
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    path.with_name(f"{path.name}.sha256").write_text(weights.with_name(f"{weights.name}.sha256").read_text())
    refuse(path, "SHA-256")


@pytest.mark.parametrize(
    ("key", "text", "match"),
    [
        ("format_version", "2", "format '2'; expected format 1"),
        ("categories", "no json", "lung_d2.categories that cannot be read; expected JSON of a list"),
        ("categories", "{}", "lung_d2.categories that cannot be read; expected JSON of a list"),
        ("categories", '[{"id": 1}, {"id": 2}]', "categories that cannot be read"),
        ("categories", json.dumps(CATEGORIES.to_coco()[:1]), "1 categories; expected 2"),
        ("provenance", "[" * 100_000, "lung_d2.provenance that cannot be read; expected JSON of a dict"),
        ("provenance", "7", "lung_d2.provenance that cannot be read; expected JSON of a dict"),
        ("input", "{}", "contradicts its config"),
        ("config", "", "not a mapping of keys"),
        ("config", "- 1", "not a mapping of keys"),
        ("config", "[" * 60_000, "more than 20 levels"),
        ("config", "#" * 70_000, "70000 letters"),
        ("config", "_BASE_: /etc/passwd", "_BASE_"),
        ("config", "_BASE_: https://a.b/c.yaml", "_BASE_"),
        ("config", "MODEL: &a {WEIGHTS: x}\nINPUT: *a", "a YAML alias"),
        ("config", "NO_SUCH_KEY: 1", "NO_SUCH_KEY"),
        ("config", "MODEL: 7", "Type mismatch"),
    ],
)  # fmt: skip
def test_metadata_of_no_sense_is_refused(weights, tmp_path, key, text, match):
    refuse(
        rewrite(weights, tmp_path / "odd.safetensors", lambda texts, _: texts.update({f"lung_d2.{key}": text})), match
    )


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/name:os.system", "python/object/new:type"])
def test_yaml_tag_is_refused_and_does_not_run(weights, tmp_path, tag):
    ran = tmp_path / "ran"
    text = f'OUTPUT_DIR: !!{tag} ["{ran}"]'
    path = rewrite(weights, tmp_path / "tag.safetensors", lambda texts, _: texts.update({"lung_d2.config": text}))
    refuse(path, "a YAML tag that is not data")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("line", "changed", "match"),
    [
        ("    CONV_DIM: 16", "    CONV_DIM: 1000000000", r"MODEL\.ROI_MASK_HEAD\.CONV_DIM 1000000000"),
        ("    NUM_CONV: 1\n", "    NUM_CONV: 100000\n", r"MODEL\.ROI_MASK_HEAD\.NUM_CONV 100000"),
        ("  MAX_SIZE_TEST: 64", "  MAX_SIZE_TEST: 60000", r"INPUT\.MAX_SIZE_TEST 60000"),
        ("    CONV_DIM: 16", "    CONV_DIM: 60000", "parameters that do not fit its config"),
        ("    NUM_CONV: 1\n", "    NUM_CONV: 2\n", "2 parameters that do not fit its config"),
        ("    NAME: build_lung_resnet_fpn", "    NAME: no_such_backbone", "NAME no_such_backbone|BACKBONE.NAME"),
        ("  STEM_OUT_CHANNELS: 32", "  STEM_OUT_CHANNELS: 33", "a config that builds no model"),
    ],
)
def test_config_of_a_model_that_is_not_in_the_file_is_refused(weights, tmp_path, line, changed, match):
    def change(texts, _):
        text = texts["lung_d2.config"]
        if line.strip().startswith("NAME"):
            name = text[text.index("  BACKBONE:") :].split("NAME: ")[1].split("\n")[0]
            texts["lung_d2.config"] = text.replace(f"NAME: {name}", changed.strip())
        else:
            assert line in text
            texts["lung_d2.config"] = text.replace(line, changed)

    start = time.perf_counter()
    refuse(rewrite(weights, tmp_path / "odd.safetensors", change), match)
    assert time.perf_counter() - start < 20


def with_config(path, copy, **keys):
    """Write a copy of a weights file in which keys under MODEL differ."""

    def change(texts, _):
        content = yaml.safe_load(texts["lung_d2.config"])
        for key, value in keys.items():
            node, leaf = content, key
            while "__" in leaf:
                above, leaf = leaf.split("__", 1)
                node = node[above]
            assert leaf in node
            node[leaf] = value
        texts["lung_d2.config"] = yaml.safe_dump(content)

    return rewrite(path, copy, change)


@pytest.mark.parametrize("name", ["RetinaNet", "SemanticSegmentor", "NoSuchNet", "BackboneDistiller"])
def test_other_architecture_is_refused(weights, tmp_path, name):
    path = with_config(weights, tmp_path / "odd.safetensors", MODEL__META_ARCHITECTURE=name)
    refuse(path, "META_ARCHITECTURE")


def test_names_alone_are_categories_too(weights, tmp_path):
    """Files of earlier versions tell no more."""
    names = [{"id": 1, "name": "ground_glass_opacity"}, {"id": 2, "name": "bronchiectasis"}]
    older = {"lung_d2.categories": json.dumps(names)}
    path = rewrite(weights, tmp_path / "older.safetensors", lambda texts, _: texts.update(older))
    assert read_weights_file(path).categories == CATEGORIES


def test_places_of_the_config_are_cleared(weights, tmp_path):
    (tmp_path / "start.pth").write_text("no checkpoint")
    keys = {
        "MODEL__WEIGHTS": str(tmp_path / "start.pth"),
        "DATASETS__PROPOSAL_FILES_TEST": ["https://127.0.0.1:9/boxes.pkl"],
        "OUTPUT_DIR": str(tmp_path / "elsewhere"),
    }
    path = with_config(weights, tmp_path / "odd.safetensors", **keys)
    cfg = config_of(path)
    assert f"lung_d2://{path}" == cfg.MODEL.WEIGHTS
    assert cfg.OUTPUT_DIR == "./output"
    assert cfg.DATASETS.PROPOSAL_FILES_TEST == ()
    text = read_weights_file(path).config_text
    assert not [word for word in (str(tmp_path), "127.0.0.1") if word in text]
    assert config_of(path, ["OUTPUT_DIR", "mine"]).OUTPUT_DIR == "mine"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors, name: tensors.update({name: tensors[name][:1].clone()}), "1 parameters that do not"),
        (lambda tensors, name: tensors.pop(name), "1 parameters that do not"),
        (lambda tensors, name: tensors.update({"extra": torch.ones(2)}), "1 parameters that do not.*extra first"),
    ],
)
def test_parameter_of_another_kind_is_refused(weights, tmp_path, change, match):
    name = "roi_heads.box_predictor.cls_score.weight"
    refuse(rewrite(weights, tmp_path / "odd.safetensors", lambda _, tensors: change(tensors, name)), match)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameter_that_is_no_number_is_refused(weights, tmp_path, value):
    name = "roi_heads.box_predictor.cls_score.bias"
    path = rewrite(weights, tmp_path / "odd.safetensors", lambda _, tensors: tensors[name].fill_(value))
    refuse(path, f"NaN or infinity in {name}", lambda path: read_weights_file(path).read_tensors())


def test_folder_and_missing_file_are_refused(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    refuse(tmp_path / "folder.safetensors", "no such file")
    refuse(tmp_path / "gone.safetensors", "no such file")


def test_keys_of_the_network_are_bound_and_those_of_the_training_are_not(tmp_path):
    found = bound_settings(tiny_config(tmp_path, tmp_path))
    assert {"INPUT.CT.GREY", "MODEL.PIXEL_MEAN", "MODEL.RESNETS.NORM", "MODEL.ROI_BOX_HEAD.FC_DIM"} <= found.keys()
    free = {"MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.BACKBONE.FREEZE_AT", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"}
    free |= {"MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK", "MODEL.RPN.POST_NMS_TOPK_TEST", "SOLVER.BASE_LR", "OUTPUT_DIR"}
    free |= {"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE"}
    assert not free & found.keys()


def test_portable_config_names_no_place(tmp_path):
    opts = ["MODEL.WEIGHTS", "/home/jane/start.pth", "DATASETS.PROPOSAL_FILES_TRAIN", ("~/boxes.pkl",)]
    opts += ["TEST.BEST_METRIC", "bbox/AP50"]
    cfg = tiny_config(tmp_path, tmp_path, *opts)
    text = portable_config(cfg)
    for word in ("home", "jane", str(tmp_path), "boxes"):
        assert word not in text
    assert yaml.safe_load(text)["DATASETS"]["TRAIN"] == ["tiny_train"]
    assert yaml.safe_load(text)["MODEL"]["DEVICE"] == "cuda"
    assert yaml.safe_load(text)["TEST"]["BEST_METRIC"] == "bbox/AP50"
    assert cfg.MODEL.WEIGHTS == "/home/jane/start.pth"


def test_portable_config_is_the_same_config(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    again = parse_config(portable_config(cfg), "here")
    assert bound_settings(again) == bound_settings(cfg)
    assert again.SOLVER == cfg.SOLVER


def test_lists_that_stand_twice_are_written_twice(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    cfg.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_MEAN
    assert "*" not in portable_config(cfg)
    assert parse_config(portable_config(cfg), "here").MODEL.PIXEL_STD == cfg.MODEL.PIXEL_MEAN


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_MASK_HEAD.CONV_DIM", 1 << 17),
        ("MODEL.ROI_MASK_HEAD.NUM_CONV", 5000),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 1000),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[1 << 20]]),
        ("INPUT.MIN_SIZE_TEST", 5000),
        ("TEST.DETECTIONS_PER_IMAGE", 1_000_000),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", float("nan")),
        ("INPUT.CT.WINDOW_WIDTH", float("inf")),
    ],
)
def test_number_of_no_sense_is_refused(tmp_path, key, value):
    check_trusted(cfg := tiny_config(tmp_path, tmp_path), "here")
    cfg.merge_from_list([key, value])
    with pytest.raises(CheckpointError, match=rf"here: {key}"):
        check_trusted(cfg, "here")


def test_number_that_python_does_not_write_out_is_refused(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    cfg.SOLVER.MAX_ITER = 1 << 20_000
    with pytest.raises(CheckpointError, match=r"here: SOLVER\.MAX_ITER of more than 64 bits"):
        check_trusted(cfg, "here")


def test_defaults_of_detectron2_are_within_the_bounds():
    cfg = get_cfg()
    add_lung_config(cfg)
    check_trusted(cfg, "here")
