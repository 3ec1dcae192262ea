"""DICOM files written by hand, of a person whose name no output may hold."""

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

from covid_jax import UserError
from covid_jax.scans.dicom import header
from covid_jax.scans.dicom.series import decode_dicom

SHARED = Path(__file__).parents[1] / '../shared/data/COVID-CT-MD'
SECRETS = ('DOE', 'JANE', 'ID12345', '777888', '19510203')
XRAY = uid.DigitalXRayImageStorageForPresentation
SR = uid.BasicTextSRStorage


@pytest.fixture(autouse=True)
def no_name_is_told(capfd, caplog):
    """Whatever a test does, neither stdout nor stderr nor the log holds a patient's name."""
    caplog.set_level(logging.DEBUG)
    header.quiet()  # as at import; the filters of pytest came in front since
    yield
    out, err = capfd.readouterr()
    assert out == err == ''
    assert not any(secret in caplog.text for secret in SECRETS)


def ct(path, stored=None, z=0.0, number=1, syntax=uid.ExplicitVRLittleEndian, preamble=True, **tags):
    """A CT slice [6, 8] of a person who lies on the back, head first; a tag of None is left out, others replace."""
    stored = np.arange(48, dtype='<u2').reshape(6, 8) if stored is None else stored
    data = Dataset()
    everything = {
        'SOPClassUID': uid.CTImageStorage, 'SOPInstanceUID': f'1.2.{number}.{abs(int(z * 1000))}', 'Modality': 'CT',
        'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'], 'SeriesInstanceUID': '7afb0d48-ec01', 'PatientName': 'DOE^JANE',
        'PatientID': 'ID12345', 'AccessionNumber': '777888', 'PatientBirthDate': '19510203',
        'SeriesDescription': 'chest of DOE^JANE', 'ImageComments': 'ID12345 born 19510203', 'InstanceNumber': number,
        'ImagePositionPatient': [-4, -3, z], 'ImageOrientationPatient': [1, 0, 0, 0, 1, 0], 'PixelSpacing': [0.7, 0.5],
        'SliceThickness': 3, 'RescaleSlope': 1, 'RescaleIntercept': -1024, 'SamplesPerPixel': 1,
        'PhotometricInterpretation': 'MONOCHROME2', 'Rows': stored.shape[-2], 'Columns': stored.shape[-1],
        'BitsAllocated': 8 * stored.itemsize, 'BitsStored': 8 * stored.itemsize,
        'PixelRepresentation': int(stored.dtype.kind == 'i'), **tags}
    everything.setdefault('HighBit', everything['BitsStored'] - 1)
    for key, value in everything.items():
        if value is not None and key != 'PixelData':
            setattr(data, key, value)
    order = '>' if syntax == uid.ExplicitVRBigEndian else '<'
    pixels = tags.get('PixelData', stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    if pixels is not None:
        data.PixelData = pixels
        data['PixelData'].VR = 'OB' if syntax.is_compressed else 'OW'
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = everything['SOPClassUID']
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if preamble:
        data.preamble = bytes(128)
        data.save_as(path, enforce_file_format=True)
    else:
        del data.file_meta
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True)
    return path


def series(folder, zs=(0, 2, 4, 6), **tags):
    """Slices at heights z, numbered from 1, whose values are 100 n + their place."""
    folder.mkdir(exist_ok=True)
    return [ct(folder / f's{n}.dcm', np.arange(48, dtype='<u2').reshape(6, 8) + 100 * n, z, n, **tags)
            for n, z in enumerate(zs, 1)]


def xray(path, stored, **tags):
    """A chest X-ray."""
    tags = {'SOPClassUID': XRAY, 'Modality': 'DX', 'RescaleSlope': None, 'RescaleIntercept': None,
            'ImagePositionPatient': None, 'ImageOrientationPatient': None, **tags}
    return ct(path, stored, **tags)


def refused(paths, *words, series=''):
    """The one line that says why files cannot be decoded; it holds the words and nobody's name."""
    with pytest.raises((ValueError, UserError)) as caught:
        decode_dicom(paths, series)
    text = str(caught.value)
    assert '\n' not in text and not any(secret in text for secret in SECRETS), text
    assert all(word in text for word in words), text
    return text


def table(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item['LUTDescriptor'].VR = 'US'
    item.LUTData = values
    item['LUTData'].VR = 'US'
    return [item]


def item(**tags):
    data = Dataset()
    for key, value in tags.items():
        setattr(data, key, value)
    return [data]


def enhanced(path, zs, slopes, **tags):
    """An enhanced CT whose frame n holds n everywhere."""
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.7, 0.5], SliceThickness=2)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    for z, slope in zip(zs, slopes, strict=True):
        frames.append(Dataset())
        frames[-1].PlanePositionSequence = item(ImagePositionPatient=[0, 0, z])
        frames[-1].PixelValueTransformationSequence = item(RescaleSlope=slope, RescaleIntercept=-10, RescaleType='HU')
    stored = np.repeat(np.arange(1, len(zs) + 1, dtype='<u2'), 48).reshape(-1, 6, 8)
    return ct(path, stored, **{
        'SOPClassUID': uid.EnhancedCTImageStorage, 'NumberOfFrames': len(zs),
        'SharedFunctionalGroupsSequence': [shared], 'PerFrameFunctionalGroupsSequence': frames,
        'RescaleSlope': None, 'RescaleIntercept': None, 'PixelSpacing': None,
        'ImagePositionPatient': None, 'ImageOrientationPatient': None, 'SliceThickness': None, **tags})


def compressed(path, source, syntax):
    """The file with its pixels as gdcm compresses them."""
    import gdcm
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    packed = pydicom.dcmread(path)
    assert packed.file_meta.TransferSyntaxUID == syntax
    return with_frame(path, source, next(generate_frames(packed.PixelData, number_of_frames=1)), syntax)


def with_frame(path, source, frame, syntax):
    """The file with other, compressed pixels."""
    data = pydicom.dcmread(source)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([frame])
    data['PixelData'].VR = 'OB'
    data['PixelData'].is_undefined_length = True
    data.save_as(path)
    return path


def frame_of(path):
    return next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
