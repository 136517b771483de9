"""Coded concepts of the DICOM objects made here (PS3.16; SNOMED CT, LOINC and UCUM by their own codes)."""

from __future__ import annotations

from pydicom.sr.coding import Code

from lung_d2.categories import Category

ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
LUNG = Code("39607008", "SCT", "Lung")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
CT_CHEST = Code("24627-2", "LN", "CT Chest")
DEVICE = Code("121007", "DCM", "Device")  # CID 270
ENGLISH = Code("en", "RFC5646", "English")

LATERALITY = {  # CID 244
    "right": Code("24028007", "SCT", "Right"),
    "left": Code("7771000", "SCT", "Left"),
    "both": Code("51440002", "SCT", "Bilateral"),
}
"""By :attr:`lung_d2.lesions.measure.Measurement.side`."""

PRESENT = Code("52101004", "SCT", "Present")  # CID 240
ABSENT = Code("272519000", "SCT", "Absent")
COMMENT = Code("121106", "DCM", "Comment")

VOLUME = Code("118565006", "SCT", "Volume")  # CID 7469, as all that follow
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
WIDTH = Code("103355008", "SCT", "Width")
DEPTH = Code("131197000", "SCT", "Depth")
HEIGHT = Code("121207", "DCM", "Height")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")  # CID 6048

MEAN = Code("373098007", "SCT", "Mean")  # CID 7464
MEDIAN = Code("373099004", "SCT", "Median")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")

MILLILITER = Code("ml", "UCUM", "milliliter")
MILLIMETER = Code("mm", "UCUM", "millimeter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "percent")

OWN_SCHEME = "99LUNGD2"
"""Designator of the concepts that no standard scheme has; those that begin with 99 are private (PS3.16 8.2)."""
LUNG_SHARE = Code("lung_share", OWN_SCHEME, "Volume inside the lungs over volume of the lungs")


def category_code(category: Category) -> Code:
    """Return the code of a category."""
    return Code(*category.code)


def category_title(category: Category) -> str:
    """Return what people call a category, as ``Ground glass opacity``."""
    return category.code[2]
