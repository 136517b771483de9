"""Write copies of one real CT with phantom lesions, in the layout of a cohort of phantoms.

All copies bear one PatientID, which follows from the source's patient: no split by patient can part them. Of the
source's headers nothing else is taken over; its pixels are, so what may be done with the source may be done with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from lung_d2.ct.volume import CTVolume, read_volume
from lung_d2.files import hash_identity
from lung_d2.phantom.cohort import Progress, write_folders
from lung_d2.phantom.dicom import SeriesHeader, write_case
from lung_d2.phantom.insert_lung import RealLung, prepare_lung
from lung_d2.phantom.insertion import INSERTED, InsertedCopy, insert_lesions
from lung_d2.phantom.spec import PhantomSpec
from lung_d2.phantom.uids import derived_uid

# Raise it with every change of the insertion that changes a picture.
INSERTION_VERSION = 1


def insertion_hash(spec: PhantomSpec, volume: CTVolume) -> str:
    """Return 64 hexadecimal digits for the CT, the insertion and what it takes of a spec."""
    asked = (spec.ground_glass_opacity, spec.bronchiectasis, spec.overlap_share, spec.distractors, spec.seed)
    digest = hashlib.sha256(f"{INSERTION_VERSION} {asked!r} {volume.series_hash} {volume.affine_lps.tolist()}".encode())
    digest.update(volume.hu.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class InsertionRecipe:
    """Copies of a CT.

    Attributes:
        source: The CT, as :func:`lung_d2.ct.read_volume` takes it.
        series_uid: Which series of it; None where it holds one.
        spec: Number, size and evidence of the lesions, and the seed.
        spec_hash: See :func:`insertion_hash`.
    """

    source: str
    series_uid: str | None
    spec: PhantomSpec
    spec_hash: str

    def write(self, number: int, folder: Path) -> None:
        """Make and write one copy."""
        lung = _load(self.source, self.series_uid)
        copy = insert_lesions(lung, number, self.spec)
        record = {
            "spec_hash": self.spec_hash,
            "number": number,
            "source_series": lung.volume.series_hash,
            "lesions": [asdict(lesion) for lesion in copy.lesions],
        }
        volume = self._volume(lung.volume, copy)
        write_case(volume, self._header(lung.volume, number), copy.instances, record, folder)

    def _uid(self, number: int, purpose: str) -> str:
        return derived_uid(f"{self.spec_hash} {number} {purpose}")

    def _volume(self, source: CTVolume, copy: InsertedCopy) -> CTVolume:
        series = self._uid(copy.number, "series")
        return replace(
            source,
            hu=copy.hu,
            series_instance_uid=series,
            study_instance_uid=self._uid(copy.number, "study"),
            sop_instance_uids=tuple(self._uid(copy.number, f"slice {index}") for index in range(len(copy.hu))),
            frame_numbers=(None,) * len(copy.hu),
            patient_hash=hash_identity("patient", patient_id(source)),
            series_hash=hash_identity("series", series),
            source_files=(),
            dicom=None,
        )

    def _header(self, source: CTVolume, number: int) -> SeriesHeader:
        return SeriesHeader(
            patient_name="PHANTOM^INSERTED",
            patient_id=patient_id(source),
            study_id=str(number),
            study_description="Chest CT with synthetic lesions",
            series_description="Phantom lesions in a real CT",
            frame_of_reference_uid=self._uid(number, "frame of reference"),
            image_type=("DERIVED", "PRIMARY", "AXIAL"),
            derivation="Synthetic lesions inserted; no finding of a patient",
        )


def patient_id(source: CTVolume) -> str:
    """Return the PatientID of all copies of all series of the source's patient; it tells nothing about him."""
    return f"PHANTOM-{hash_identity('phantom source', source.patient_hash)[:8].upper()}"


@lru_cache(maxsize=1)
def _load(source: str, series_uid: str | None) -> RealLung:
    """Read and prepare the CT, once in each process."""
    return prepare_lung(read_volume(source, series_uid))


def write_inserted_cohort(
    source: str | Path,
    out_dir: str | Path,
    spec: PhantomSpec = INSERTED,
    workers: int = 1,
    progress: Progress | None = None,
    series_uid: str | None = None,
) -> list[Path]:
    """Write ``spec.patients`` copies of a CT with phantom lesions, each to ``out_dir/copy_NNN``.

    It may be stopped and started again, see :func:`lung_d2.phantom.cohort.write_cohort`.

    Args:
        source: A chest CT of healthy lungs without contrast medium, as :func:`lung_d2.ct.read_volume` takes it.
        out_dir: Folder of the cohort.
        spec: Number, size and evidence of the lesions, distractors, number of copies and seed.
        workers: Processes; each holds the CT.
        progress: Called with the copies done and all of them.
        series_uid: Which series of the source, where it holds several.

    Returns:
        The folders, by number of the copy.

    Raises:
        InputError: The CT cannot be used, see :func:`lung_d2.phantom.insert_lung.prepare_lung`.
        DatasetError: The folder holds another cohort, or cannot be written.
    """
    lung = _load(str(source), series_uid)
    recipe = InsertionRecipe(str(source), series_uid, spec, insertion_hash(spec, lung.volume))
    folders = [Path(out_dir) / f"copy_{number:03d}" for number in range(spec.patients)]
    return write_folders(recipe, Path(out_dir), folders, workers, progress)
