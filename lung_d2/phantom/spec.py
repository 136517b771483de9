"""Parameters of a phantom cohort, the named cohorts, and the hashes and UIDs derived from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from lung_d2.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """An interval from which a value is drawn uniformly."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError("phantom range", found=f"{self.low}..{self.high}", expected="low <= high", remedy="swap")


@dataclass(frozen=True)
class LesionSpec:
    """How many lesions of one category a patient has, and how evident they are.

    Attributes:
        count: Lesions a patient, both ends included.
        size_mm: Half the size of a lesion, mm (semi-axis of an opacity; outer radius of a dilated bronchus).
        evidence: 0 (subtle: thin walls, faint haze, vague edges) to 1 (evident).
    """

    count: tuple[int, int]
    size_mm: Range
    evidence: Range

    def __post_init__(self) -> None:
        if not 0 <= self.count[0] <= self.count[1]:
            raise ConfigError(
                "phantom lesion count", found=str(self.count), expected="0 <= fewest <= most", remedy="correct the spec"
            )


@dataclass(frozen=True)
class PhantomSpec:
    """A cohort of phantoms. All geometry is continuous and in mm; the matrix and the spacing only sample it.

    Attributes:
        matrix: Rows and columns of a slice.
        pixel_mm: Pixel size, mm; ``None`` fits each patient's body into the matrix.
        slice_count: Slices a patient.
        slice_spacing_mm: Distance of the slices, mm; ``None`` spreads them over the whole lungs.
        slice_thickness_mm: Thickness that a slice averages over, mm; ``None`` is the distance of the slices.
        ground_glass_opacity: Opacities.
        bronchiectasis: Clusters of dilated bronchi.
        noise_hu: Standard deviation of the noise of a soft kernel, HU.
        kernels: Names of reconstruction kernels to choose from.
        distractors: 0 (none) to 1 (many): dependent density, emphysema, nodules, bands, motion.
        lung_hu: Mean of the normal parenchyma of a patient, HU.
        prone_share: Share of patients lying prone.
        overlap_share: Share of the dilated bronchi that lie in an opacity (traction bronchiectasis).
        patients: Patients of the cohort.
        seed: Seed of the cohort.
    """

    matrix: tuple[int, int] = (512, 512)
    pixel_mm: float | None = None
    slice_count: int = 32
    slice_spacing_mm: float | None = None
    slice_thickness_mm: float | None = None
    ground_glass_opacity: LesionSpec = field(default_factory=lambda: LesionSpec((1, 4), Range(8, 24), Range(0.3, 1.0)))
    bronchiectasis: LesionSpec = field(default_factory=lambda: LesionSpec((1, 4), Range(3.0, 6.0), Range(0.3, 1.0)))
    noise_hu: Range = field(default_factory=lambda: Range(10, 24))
    kernels: tuple[str, ...] = ("soft", "lung", "sharp")
    distractors: float = 0.7
    lung_hu: Range = field(default_factory=lambda: Range(-885, -835))
    prone_share: float = 0.05
    overlap_share: float = 0.3
    patients: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("slice_count", "patients", "pixel_mm", "slice_spacing_mm", "slice_thickness_mm")
        values = {name: getattr(self, name) for name in names} | {"matrix": min(self.matrix) - 15}
        if wrong := [name for name, value in values.items() if value is not None and value <= 0]:
            raise ConfigError("PhantomSpec", found=f"{', '.join(wrong)} too small", remedy="give a positive size")


# Raise it with every change of the generator that changes an image, so that older cohorts are not mixed in.
GENERATOR_VERSION = 1


def spec_hash(spec: PhantomSpec) -> str:
    """Return 64 hexadecimal digits for the generator and all parameters of a spec except its number of patients."""
    return hashlib.sha256(f"{GENERATOR_VERSION} {replace(spec, patients=1)!r}".encode()).hexdigest()


def phantom_uid(spec: PhantomSpec, number: int, purpose: str) -> str:
    """Return a UID under 2.25 (a UUID as one number, DICOM PS3.5 B.2), derived from what determines the image.

    Args:
        spec: The cohort.
        number: Number of the patient.
        purpose: What the UID is for.
    """
    digest = hashlib.sha256(f"{spec_hash(spec)} {number} {purpose}".encode()).digest()[:16]
    # Version 5 and variant bits make it a well-formed UUID (RFC 4122).
    value = bytearray(digest)
    value[6], value[8] = (value[6] & 0x0F) | 0x50, (value[8] & 0x3F) | 0x80
    return f"2.25.{int.from_bytes(value, 'big')}"


QUICK = PhantomSpec(
    matrix=(256, 256),
    slice_count=20,
    slice_spacing_mm=7.0,
    slice_thickness_mm=5.0,
    ground_glass_opacity=LesionSpec((2, 4), Range(14.0, 24.0), Range(0.85, 1.0)),
    bronchiectasis=LesionSpec((2, 4), Range(6.0, 8.5), Range(0.85, 1.0)),
    noise_hu=Range(8.0, 16.0),
    kernels=("soft", "lung"),
    distractors=0.3,
    prone_share=0.0,
    overlap_share=0.2,
    patients=20,
    seed=20_240,
)

BENCHMARK = PhantomSpec(
    matrix=(512, 512),
    slice_count=32,
    slice_spacing_mm=5.0,
    slice_thickness_mm=2.5,
    ground_glass_opacity=LesionSpec((2, 5), Range(7.0, 21.0), Range(0.0, 0.7)),
    bronchiectasis=LesionSpec((2, 5), Range(3.2, 5.8), Range(0.0, 0.65)),
    noise_hu=Range(12.0, 26.0),
    kernels=("soft", "lung", "sharp"),
    distractors=1.0,
    lung_hu=Range(-895.0, -805.0),
    prone_share=0.1,
    overlap_share=0.35,
    patients=40,
    seed=71_830,
)

MINI = PhantomSpec(
    matrix=(96, 96),
    slice_count=6,
    slice_spacing_mm=14.0,
    slice_thickness_mm=5.0,
    ground_glass_opacity=LesionSpec((2, 3), Range(18.0, 28.0), Range(0.8, 1.0)),
    bronchiectasis=LesionSpec((2, 3), Range(8.0, 11.0), Range(0.8, 1.0)),
    kernels=("soft",),
    distractors=0.3,
    prone_share=0.0,
    patients=3,
    seed=7,
)

# Of BENCHMARK and of the generator that makes it: see preset_hash.
BENCHMARK_HASH = "2405c284f0f474792d41e8d86b4d93c3d4df0ee937707434e2d79fadee793c54"

PRESETS = {"quick": QUICK, "benchmark": BENCHMARK, "mini": MINI}


def preset_by_name(name: str) -> PhantomSpec:
    """Return a preset.

    Raises:
        ConfigError: No preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"preset {name!r}", found="unknown", expected=f"one of {', '.join(PRESETS)}", remedy="take one"
        )
    return PRESETS[name]


def preset_hash(name: str) -> str:
    """Return 64 hexadecimal digits for a preset: all its parameters, its patients and the generator's version.

    A figure measured on the benchmark is valid for :data:`BENCHMARK_HASH` only. The hash guards against a changed
    parameter; a test compares pictures, in case the generator itself changes.
    """
    spec = preset_by_name(name)
    return hashlib.sha256(f"{spec.patients} {spec_hash(spec)}".encode()).hexdigest()
