"""What a phantom cohort is made of: sizes, spacing, lesions and difficulty, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field

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
                "phantom lesion count", found=str(self.count), expected="0 <= fewest <= most", remedy="mend the spec"
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
        wrong = [
            name
            for name, value in (
                ("matrix", min(self.matrix) - 15),
                ("slice_count", self.slice_count),
                ("patients", self.patients),
                ("pixel_mm", 1 if self.pixel_mm is None else self.pixel_mm),
                ("slice_spacing_mm", 1 if self.slice_spacing_mm is None else self.slice_spacing_mm),
                ("slice_thickness_mm", 1 if self.slice_thickness_mm is None else self.slice_thickness_mm),
            )
            if value <= 0
        ]
        if wrong:
            raise ConfigError("PhantomSpec", found=f"{', '.join(wrong)} too small", remedy="give a positive size")
