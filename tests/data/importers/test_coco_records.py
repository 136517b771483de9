from __future__ import annotations

import json

import pytest

from data.importers.drawn import make_request
from lung_d2.data.importers.coco_json import find_cases
from lung_d2.data.importers.coco_records import read_coco
from lung_d2.errors import DatasetError


def test_file_of_labelme_is_sent_to_its_importer(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [], "imagePath": "a.png"}))
    with pytest.raises(DatasetError, match=r"a\.json: a file of labelme; .*give the subcommand labelme"):
        read_coco(tmp_path / "a.json")


def test_export_as_cvat_is_sent_to_its_importer(tmp_path):
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(DatasetError, match=r"no JSON file; .*give the subcommand cvat"):
        find_cases(make_request(tmp_path))
