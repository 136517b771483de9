"""The keys of ``findings.json``.

Unknown values are null: there is no NaN. Numbers are rounded to 6 decimals. Positions and vectors in mm are LPS (x to
the patient's left, y to the back, z to the head); indices are 0-based; ``slice_index`` counts along the slice normal.
It holds no names, ids or birth dates of patients: a series is identified by its UID and its hash.
"""

from __future__ import annotations

from typing import Any, TypedDict

SCHEMA_VERSION = 1
"""Increased when a key is removed or changes its meaning; not for new keys."""


class Series(TypedDict):
    """Which series it is.

    Attributes:
        series_hash: 16 hexadecimal digits, also the name of the result folder.
        series_instance_uid: Null if the source has no legal one, as NIfTI.
        study_instance_uid: The same.
    """

    series_hash: str
    series_instance_uid: str | None
    study_instance_uid: str | None


class Geometry(TypedDict):
    """The grid of the volume.

    Attributes:
        shape_zyx: Slices, rows, columns.
        spacing_mm: Between slices along their normal, between rows, between columns.
        affine_lps: 4 x 4: index (column, row, slice, 1) to the centre of the voxel.
        first_slice_position_mm: Along the normal.
        last_slice_position_mm: Along the normal.
    """

    shape_zyx: list[int]
    spacing_mm: list[float]
    affine_lps: list[list[float]]
    first_slice_position_mm: float
    last_slice_position_mm: float


class Linking(TypedDict):
    """The settings of :class:`lung_d2.lesions.link.LinkSettings`."""

    min_detection_score: float
    min_lesion_score: float
    min_overlap: float
    max_gap_mm: float
    max_covered: float
    min_volume_mm3: float
    min_extent_mm: float
    score_rule: str


class Grey(TypedDict):
    """The grey levels that the network was given.

    Attributes:
        kind: ``window``, ``minmax_clahe``, or ``any``.
        window_center: HU; null without a window.
        window_width: HU; null without a window.
        channels: ``single``, or ``neighbours``.
    """

    kind: str
    window_center: float | None
    window_width: float | None
    channels: str


class Model(TypedDict):
    """The model that was run, as far as it is known.

    Attributes:
        name: Of the weights, if their file has one.
        weights_sha256: Of the weights file.
        config_sha256: Of the config's text.
        data: Names of the data sets that the weights were trained on.
        iterations: Of the training.
    """

    name: str | None
    weights_sha256: str | None
    config_sha256: str | None
    data: list[str]
    iterations: int | None


class Settings(TypedDict):
    """How the findings were made.

    Attributes:
        linking: From detections to lesions.
        grey_levels: The network's pictures.
        lungs_from: Source of the lung field, in a few words; null without one.
        lobes_from: Source of the lobes; null without them.
        lung_margin_mm: The network saw the box of the lungs with this margin; null: whole slices.
    """

    linking: Linking
    grey_levels: Grey
    lungs_from: str | None
    lobes_from: str | None
    lung_margin_mm: float | None


class Range(TypedDict):
    """A volume at the score thresholds around the one used, see :class:`lung_d2.lesions.totals.VolumeRange`."""

    lower_score: float
    upper_score: float
    lower_score_ml: float
    upper_score_ml: float


class Lobe(TypedDict):
    """What lesions occupy of a lobe.

    Attributes:
        lobe: One of :data:`lung_d2.lesions.lobes.LOBES`.
        volume_ml: Inside the lobe.
        share_percent: Of the lobe's volume; null if there is no such lobe.
    """

    lobe: str
    volume_ml: float
    share_percent: float | None


class Box(TypedDict):
    """Where a lesion lies: slice, row and column of its first voxel, and those after its last."""

    start_zyx: list[int]
    stop_zyx: list[int]


class Slice(TypedDict):
    """A slice that shows a lesion.

    Attributes:
        slice_index: 0-based.
        position_mm: Along the normal.
        sop_instance_uid: Of the image; null if it has none.
        frame_number: 1-based, of a multi-frame image; else null.
        score: Highest score of the lesion's detections there, 0..1.
        area_mm2: Of the lesion there.
    """

    slice_index: int
    position_mm: float
    sop_instance_uid: str | None
    frame_number: int | None
    score: float
    area_mm2: float


LesionEntry = dict[str, Any]
"""A lesion. It has

- ``number``: from 1; the same in DICOM and NIfTI outputs;
- ``category``: the name of its category;
- a key for each measure of :data:`lung_d2.lesions.measure.MEASURES`;
- ``key_slice_index``: the slice that shows most of it;
- ``lobes``: a list of :class:`Lobe`, empty without lobes;
- ``box``: a :class:`Box`;
- ``volume_range``: a :class:`Range`, or null;
- ``slices``: a list of :class:`Slice`, the slices that show it, ascending.
"""


class TotalEntry(TypedDict):
    """What lesions occupy together, see :class:`lung_d2.lesions.totals.Total`; voxels that several share count once."""

    lesion_count: int
    voxel_count: int
    volume_ml: float
    right_ml: float | None
    left_ml: float | None
    lung_share_percent: float | None
    lobes: list[Lobe]
    volume_range: Range | None


class Lungs(TypedDict):
    """Volumes of the lungs, ml."""

    right_ml: float
    left_ml: float


class LobeSeverity(TypedDict):
    """The score of a lobe, 0 to 5; null if there is no such lobe."""

    lobe: str
    score: int | None


class Severity(TypedDict):
    """The CT severity score, 0 to 25, see :func:`lung_d2.lesions.totals.score_severity`."""

    total: int | None
    lobes: list[LobeSeverity]


class WarningEntry(TypedDict):
    """A :class:`lung_d2.errors.Warning`: a fixed word, and a sentence."""

    kind: str
    text: str


class FindingsContent(TypedDict):
    """The whole of ``findings.json``.

    Attributes:
        schema_version: :data:`SCHEMA_VERSION`.
        note: That it is not a medical device.
        model: Null if unknown.
        lesions_found: Whether there are any.
        summary: One sentence; without lesions it says ``no lesion found``.
        totals: By name of the category, and ``any``.
        lungs: Null without a lung field.
        severity: Null without lobes.
        lesions: By number.
    """

    schema_version: int
    note: str
    lung_d2_version: str
    series: Series
    geometry: Geometry
    settings: Settings
    model: Model | None
    lesions_found: bool
    summary: str
    warnings: list[WarningEntry]
    totals: dict[str, TotalEntry]
    lungs: Lungs | None
    severity: Severity | None
    lesions: list[LesionEntry]
