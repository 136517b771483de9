"""From one source to what was found on it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.ct import CTSeries, CTVolume, load_series, read_volume
from lung_d2.data.planes import read_picture
from lung_d2.errors import InputError
from lung_d2.files import hash_identity
from lung_d2.findings.document import Findings, FindingSettings
from lung_d2.findings.manifest import ModelIdentity, StageClock, identify_model
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.link import link_lesions
from lung_d2.lesions.measure import measure_lesions
from lung_d2.lesions.totals import measure_totals, measure_volume_ranges, score_severity
from lung_d2.recognition.fields import Fields, find_fields
from lung_d2.recognition.result import Recognition, load_writers
from lung_d2.recognition.settings import RecognitionSettings
from lung_d2.recognition.sources import list_given_pictures

if TYPE_CHECKING:
    from lung_d2.engine import CTPredictor
    from lung_d2.engine.predictor import ModelOrigin

Source = str | Path | Sequence[str | Path] | CTSeries | CTVolume


def recognize(
    source: Source,
    predictor: CTPredictor,
    settings: RecognitionSettings | None = None,
    *,
    series_uid: str | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> Recognition:
    """Find the lesions of a series, or detect them on pictures of slices.

    Args:
        source: A :class:`CTVolume` or :class:`CTSeries`; a DICOM folder, DICOM files or a volume file (NIfTI, NRRD,
            MetaImage); or 8-bit pictures of slices, or a folder of them and no DICOM, for a model trained on such.
        predictor: Model and grey levels.
        settings: How; the default is :class:`RecognitionSettings` as it is.
        series_uid: Which series, where the source holds several.
        progress: Whether to show a bar of the slices; or what is called with the slices done and all, after each.

    Returns:
        What was found; of pictures the detections alone.

    Raises:
        InputError: The source cannot be read rightly.
    """
    settings = settings or RecognitionSettings()
    pictures = [] if isinstance(source, CTVolume | CTSeries) else list_given_pictures(source)
    if pictures:
        return _recognize_pictures(pictures, predictor, settings)
    clock = StageClock()
    with clock.stage("read"):
        volume = _read(source, series_uid)
    with clock.stage("lungs"):
        fields = find_fields(volume, settings.labels)
    Thread(target=load_writers, daemon=True).start()
    with clock.stage("network"):
        detections = tuple(predictor(volume, fields.lungs, settings.use, progress=progress))
    return Recognition(
        name=volume.series_hash,
        planes=list(volume.hu),
        detections=detections,
        model=identify(predictor),
        settings=settings,
        seconds=clock.seconds,
        categories=predictor.categories,
        findings=_measure(volume, detections, fields, predictor, settings, clock),
    )


def _read(source: Source, series_uid: str | None) -> CTVolume:
    if isinstance(source, CTVolume):
        return source
    return load_series(source) if isinstance(source, CTSeries) else read_volume(source, series_uid=series_uid)


def identify(predictor: CTPredictor) -> ModelIdentity:
    """Return what a predictor runs; of a model that was not built of a config the hashes are empty."""
    if predictor.origin is None:
        return ModelIdentity("", "", predictor.device_name)
    return identify_origin(predictor.origin, predictor.device_name)


@functools.lru_cache(maxsize=4)
def identify_origin(origin: ModelOrigin, device: str) -> ModelIdentity:
    """Hash config and weights, once for all series."""
    return identify_model(origin.config_text, origin.weights, device, origin.provenance)


def _measure(
    volume: CTVolume,
    detections: Sequence[SliceDetections],
    fields: Fields,
    predictor: CTPredictor,
    settings: RecognitionSettings,
    clock: StageClock,
) -> Findings:
    with clock.stage("link"):
        lesions = link_lesions(detections, volume, settings.link, predictor.categories)
    with clock.stage("measure"):
        totals = measure_totals(lesions, volume, fields.lungs, fields.lobes, predictor.categories)
        opacities = totals.get(GROUND_GLASS_OPACITY.name)  # a model of other categories has none
        return Findings(
            volume=volume,
            lesions=tuple(lesions),
            measurements=tuple(measure_lesions(lesions, volume, fields.lungs, fields.lobes)),
            totals=totals,
            settings=FindingSettings(
                link=settings.link,
                grey=predictor.grey,
                channels=predictor.channels,
                lungs_from=fields.lungs_from,
                lobes_from=fields.lobes_from,
                lung_margin_mm=predictor.view_of(volume, fields.lungs, settings.use).margin_mm,
            ),
            ranges=measure_volume_ranges(lesions, detections, volume, settings.link, categories=predictor.categories),
            severity=score_severity(opacities) if fields.lobes and opacities else None,
            lungs=fields.lungs,
            categories=predictor.categories,
        )


def _recognize_pictures(pictures: Sequence[Path], predictor: CTPredictor, settings: RecognitionSettings) -> Recognition:
    clock = StageClock()
    with clock.stage("read"):
        planes = [read_picture(path) for path in pictures]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    with clock.stage("network"):
        try:
            detections = tuple(predictor.predict_pictures(planes))
        except InputError as error:
            raise error.at(pictures[0]) from error
    return Recognition(
        name=hash_identity("pictures", "\n".join(digests)),
        planes=planes,
        detections=detections,
        model=identify(predictor),
        settings=settings,
        seconds=clock.seconds,
        categories=predictor.categories,
    )
