"""DICOM SEG and SR of an explanation, read back by pydicom and highdicom. Needs the extra dicom-out."""

import numpy as np
import pydicom
import pytest
from dicoms import SECRETS, no_name_is_told, series, xray  # noqa: F401
from PIL import Image
from pydicom.uid import generate_uid
from volumes import image, person

from covid_jax import UserError
from covid_jax.report import dicom_out
from covid_jax.report.gradcam import Explanation
from covid_jax.scans.decode import decode

highdicom = pytest.importorskip('highdicom', reason='highdicom is of the extra [dicom-out]')

UIDS = {key: generate_uid() for key in ('StudyInstanceUID', 'SeriesInstanceUID', 'FrameOfReferenceUID')}


def scan(folder, **tags):
    """Six slices from the head to the feet; the path of its folder."""
    series(folder, (10, 8, 6, 4, 2, 0), **{**UIDS, **tags})
    return folder


def explanation(address, hot=(slice(2, 4), slice(1, 3), slice(4, 8))):
    found = decode(address)
    heat = np.full(found.voxels.shape, 0.49, np.float32)
    heat[hot] = 0.5
    heat[hot][0, 0, 0] = 1
    return Explanation(found, heat, (1, 1, 1), np.array([0.125, 0.875]), 1, ('noncovid', 'cov\\id'))


def written(tmp_path, address, **options):
    dicom_out.write(tmp_path, explanation(address, **options), address, 'runs/cmc', 'layer2')
    return highdicom.seg.segread(tmp_path / 'seg.dcm'), highdicom.sr.srread(tmp_path / 'sr.dcm')


def test_a_segmentation_lies_on_the_slices_that_it_is_of(tmp_path):
    """Its frames are at the places of their source slices, in its frame of reference; marked is what reaches half of the maximum."""
    address = scan(tmp_path / 'scan')
    seg, _ = written(tmp_path, address)
    source = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, address.iterdir())}
    assert {key: seg[key].value for key in ('StudyInstanceUID', 'FrameOfReferenceUID')} == {
        key: UIDS[key] for key in ('StudyInstanceUID', 'FrameOfReferenceUID')}
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == UIDS['SeriesInstanceUID'] != seg.SeriesInstanceUID
    assert seg.NumberOfFrames == 2
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.7, 0.5]
    heights = []
    for frame, mask in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        of, = frame.DerivationImageSequence[0].SourceImageSequence
        own = source[of.ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == own.ImagePositionPatient
        np.testing.assert_array_equal(np.argwhere(mask), [(y, x) for y in (1, 2) for x in (4, 5, 6, 7)])
        heights.append(own.ImagePositionPatient[2])
    assert sorted(heights) == [4, 6]


def test_in_a_turned_series_marked_is_the_same_place_of_the_patient(tmp_path):
    """The marked voxels of a series whose rows and columns are exchanged, by highdicom's own geometry."""
    places = []
    for name, orientation in (('a', [1, 0, 0, 0, 1, 0]), ('b', [0, 1, 0, 1, 0, 0])):
        address = scan(tmp_path / name, ImageOrientationPatient=orientation, PixelSpacing=[0.5, 0.5])
        found = decode(address)
        heat = np.zeros(found.voxels.shape, np.float32)
        heat[2:4, 1:3, 4:6] = 1
        e = Explanation(found, heat, (1, 1, 1), np.array([0.5, 0.5]), 1, ('noncovid', 'covid'))
        dicom_out.write(tmp_path / name, e, address, 'run', 'map')
        volume = highdicom.seg.segread(tmp_path / name / 'seg.dcm').get_volume(combine_segments=True)
        places.append(sorted(volume.map_indices_to_reference(np.argwhere(volume.array > 0)).round(4).tolist()))
    assert len(places[0]) == 8
    np.testing.assert_allclose(places[0], places[1], atol=1e-4)


def test_a_report_refers_to_the_segmentation_and_the_series(tmp_path):
    seg, sr = written(tmp_path, scan(tmp_path / 'scan'))
    group, = sr.content.get_volumetric_roi_measurement_groups()
    segment = group.referenced_segment
    assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID and group.tracking_uid == seg.SegmentSequence[0].TrackingUID
    values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert values['Probability'] == (0.875, '1')
    assert values['Volume'] == (pytest.approx(16 * 0.7 * 0.5 * 2), 'mm3')
    evaluation, = group.get_qualitative_evaluations()
    assert evaluation.value.meaning == 'cov/id'
    known = {ref.ReferencedSOPInstanceUID for study in (*sr.CurrentRequestedProcedureEvidenceSequence, *sr.get('PertinentOtherEvidenceSequence', []))
             for of in study.ReferencedSeriesSequence for ref in of.ReferencedSOPSequence}
    assert known == {seg.SOPInstanceUID, *(pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / 'scan').iterdir())}
    for name in ('seg.dcm', 'sr.dcm'):
        for said in ('run runs/cmc, layer layer2', '50% of the maximum or more', 'not a medical device'):
            assert said.encode() in (tmp_path / name).read_bytes()


def test_of_the_person_only_the_id_is_written(tmp_path):
    written(tmp_path, scan(tmp_path / 'scan'))
    for name in ('seg.dcm', 'sr.dcm'):
        content = (tmp_path / name).read_bytes()
        data = pydicom.dcmread(tmp_path / name)
        assert data.PatientID == 'ID12345' and str(data.PatientName) == data.PatientBirthDate == data.AccessionNumber == ''
        assert [secret for secret in SECRETS if secret.encode() in content] == ['ID12345'] and content.count(b'ID12345') == 1


def test_what_has_no_series_to_refer_to_is_one_line(tmp_path):
    def refused(address, words, **options):
        with pytest.raises(UserError, match=words):
            written(tmp_path, address, **options)

    nifti = tmp_path / 'a.nii'
    image(person()).to_filename(nifti)
    refused(nifti, 'no DICOM', hot=np.s_[:1, :1, :1])
    (tmp_path / 'slices').mkdir()
    for i in range(2):
        Image.new('L', (8, 6), i).save(tmp_path / 'slices' / f'{i}.png')
    refused(tmp_path / 'slices', 'no DICOM', hot=np.s_[:1, :1, :1])
    refused(scan(tmp_path / 'blank', FrameOfReferenceUID=None), 'FrameOfReferenceUID is blank')
    refused(xray(tmp_path / 'x.dcm', np.arange(48, dtype='<u2').reshape(6, 8), **UIDS), 'is blank', hot=np.s_[:, :2, :2])
    whole = scan(tmp_path / 'whole')
    with pytest.raises(UserError, match='the map is 0'):
        cold = explanation(whole)
        dicom_out.write(tmp_path, cold._replace(heat=np.zeros_like(cold.heat)), whole, 'run', 'map')
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(('seg', 'sr'))]
