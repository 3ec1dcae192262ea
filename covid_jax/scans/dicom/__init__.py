"""DICOM files in, a Scan out; what several files say of one scan is compared, and what does not fit is refused."""

from covid_jax.scans.dicom.series import (
    NO_DICOM,
    START,
    begins_dicom,
    decode_dicom,
    find,
    is_dicom,
    patient_digest,
    slices_of,
)

__all__ = ['NO_DICOM', 'START', 'begins_dicom', 'decode_dicom', 'find', 'is_dicom', 'patient_digest', 'slices_of']
