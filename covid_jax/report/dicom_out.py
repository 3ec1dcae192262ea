"""An explanation as DICOM: the hottest part as a segmentation (SEG) and what was measured as a report (SR, TID 1500), which open over the
series that they are of. Needs highdicom, of the extra dicom-out.

Privacy: of the series only what KEPT names is read. Its PatientID and the UIDs are written again, because a viewer or archive files an
object by them; name, birth date, sex and all other fields of the patient stay blank. highdicom's own messages are not shown, for they may
quote what they are about.
"""

import importlib.util
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from covid_jax import UserError
from covid_jax.report.gradcam import Explanation
from covid_jax.runtime import files
from covid_jax.scans import dicom, geometry
from covid_jax.scans.decode import split_address
from covid_jax.scans.dicom.header import own_words
from covid_jax.scans.scan import blame
from covid_jax.text import printable

THRESHOLD = 0.5  # of the maximum of the map: what reaches it is the hottest part
KEPT = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID', 'FrameOfReferenceUID', 'PatientID', 'Modality',
        'Rows', 'Columns', 'ImagePositionPatient', 'ImageOrientationPatient', 'PixelSpacing', 'SliceThickness')
BLANK = ('PatientName', 'PatientBirthDate', 'PatientSex', 'StudyID', 'StudyDate', 'StudyTime', 'AccessionNumber',
         'ReferringPhysicianName', 'PositionReferenceIndicator')
SERIES = {'seg': 9001, 'sr': 9002}  # numbers of the new series, of which a scanner makes none
OWN = '99COVIDJAX'  # the scheme of codes that the standard does not have
NOTE = 'Research software, not a medical device.'


def check_installed() -> None:
    """UserError where highdicom is not there."""
    if importlib.util.find_spec('highdicom') is None:
        raise UserError("--dicom needs highdicom: pip install 'covid-jax[dicom-out]'")


def write(folder: Path | str, explanation: Explanation, address: Path | str, run: str, layer: str) -> None:
    """Writes seg.dcm and sr.dcm of a CT series.

    address: the series that was explained, as DICOM files; run, layer: what the objects say of their making. UserError for a scan that
    is no such series, and for a map without heat.
    """
    if not explanation.heat.any():
        raise UserError(f'{address}: no SEG and no SR, for the map is 0')
    slices = sources_of(address)
    with own_words(Path(address), 'no SEG and no SR can be made of it'):
        made = {'seg': segmentation(explanation, slices, run, layer)}
        made['sr'] = report(explanation, slices, made['seg'], run, layer)
    for name, data in made.items():
        content = io.BytesIO()
        pydicom.dcmwrite(content, data, enforce_file_format=True)
        files.write(Path(folder, f'{name}.dcm'), content.getvalue())


def sources_of(address: Path | str) -> list[Dataset]:
    """KEPT of each slice of the series at an address, from the feet to the head, with BLANK. UserError for what is no CT of one slice a
    file that says who, where and of which study it is."""
    path, part = split_address(address)
    with blame(path):
        there = dicom.find(path) if path.is_dir() else [path] * dicom.is_dicom(path)
        if not there:
            raise UserError(f'{path}: no SEG and no SR of what is no DICOM: give the folder of a series, a zip unpacked')
        found = dicom.slices_of(there, part.get('series', ''))
    if 'slice' in part:
        found = [found[int(part['slice'])]]
    slices: list[Dataset] = []
    for file in found:
        with own_words(file, 'cannot be read as DICOM'):
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KEPT), force=True)
            missing = [name for name in KEPT if name not in ('PatientID', 'SliceThickness') and data.get(name) in (None, '')]
            if missing:
                raise UserError(f'{file}: no SEG and no SR, for its {missing[0]} is blank and nothing can refer to it: export the series '
                                'with its UIDs')
            data.PatientID = str(data.get('PatientID') or '')
            data.SpecificCharacterSet = 'ISO_IR 192'
            data.setdefault('SliceThickness', None)
        for name in BLANK:
            setattr(data, name, '')
        slices.append(data)
    return slices


def segmentation(explanation: Explanation, slices: list[Dataset], run: str, layer: str) -> Dataset:
    """The voxels of at least THRESHOLD as a binary segmentation, with a frame for each slice that has some."""
    import highdicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    name = explanation.names[explanation.target]
    hot = geometry.as_stored(explanation.heat >= THRESHOLD, explanation.scan.affine).T  # [slice, row, column], as the files have them
    segment = SegmentDescription(
        1, _short(f'Grad-CAM {name}'), codes.SCT.SpatialAndRelationalConcept, codes.NCIt.ImagingRegionOfInterest, 'AUTOMATIC',
        highdicom.AlgorithmIdentificationSequence('covid-jax Grad-CAM', codes.DCM.ArtificialIntelligence, version('covid-jax')),
        tracking_uid=highdicom.UID(), tracking_id=_short(f'Grad-CAM {name}, {_threshold()}'))
    segment.SegmentDescription = _short('; '.join(_made(explanation, run, layer)), 1024)
    return Segmentation(
        slices, hot.astype(np.uint8), 'BINARY', [segment], highdicom.UID(), SERIES['seg'], highdicom.UID(), 1,
        **_device(run), content_label='GRADCAM', series_description=_short(f'Grad-CAM {name}, {_threshold()}'))


def report(explanation: Explanation, slices: list[Dataset], seg: Any, run: str, layer: str) -> Dataset:
    """A measurement report (TID 1500): the probability of the class, and the volume of the part that the segmentation marks."""
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes

    name = explanation.names[explanation.target]
    observer = sr.ObserverContext(codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(highdicom.UID(), 'covid-jax', 'covid-jax', _short(run)))
    volume = np.prod(explanation.scan.spacing) * np.count_nonzero(explanation.heat >= THRESHOLD)
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(seg.SegmentSequence[0].TrackingUID, seg.SegmentSequence[0].TrackingID),
        referenced_segment=sr.ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, 1, source_series=sr.SourceSeriesForSegmentation(slices[0].SeriesInstanceUID)),
        finding_type=codes.NCIt.ImagingRegionOfInterest,
        algorithm_id=sr.AlgorithmIdentification('covid-jax Grad-CAM', version('covid-jax'), _made(explanation, run, layer)),
        measurements=[sr.Measurement(codes.SCT.Volume, round(float(volume), 1), codes.UCUM.CubicMillimeter),
                      sr.Measurement(codes.DCM.Probability, round(float(explanation.probability[explanation.target]), 4), codes.UCUM.NoUnits)],
        qualitative_evaluations=[sr.QualitativeEvaluation(sr.CodedConcept('class', OWN, 'Class that the network was asked about'),
                                                          sr.CodedConcept(str(explanation.target), OWN, _short(name)))])
    content = sr.MeasurementReport(sr.ObservationContext(observer_device_context=observer), codes.SCT.ComputedTomography, [group])
    device = {key: value for key, value in _device(run).items() if key == 'manufacturer'}
    return sr.Comprehensive3DSR([*slices, seg], content[0], highdicom.UID(), SERIES['sr'], highdicom.UID(), 1, **device,
                                series_description=_short(f'Grad-CAM {name}, report'))


def _device(run):
    """Who made an object."""
    return {'manufacturer': 'covid-jax', 'manufacturer_model_name': 'covid-jax explain', 'software_versions': version('covid-jax'),
            'device_serial_number': _short(run)}


def _made(explanation, run, layer):
    """How it was made, in sentences."""
    name = explanation.names[explanation.target]
    return [f'run {printable(run)}, layer {printable(layer)}, class {printable(name)}', f'marked is {_threshold()}',
            'the probability is of one plain view, not calibrated', NOTE]


def _threshold():
    return f'{THRESHOLD:.0%} of the maximum or more'


def _short(text, most=64):
    """As much of a text as an element holds, in which no sign parts two values."""
    return printable(text).replace('\\', '/')[:most]
