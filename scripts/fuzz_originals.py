"""A small file of every kind that decode knows, for fuzz_decode.py to damage."""

import io
import json
import tempfile
import zipfile
import zlib

import nibabel
import nrrd
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames


def originals(root):
    """Writes a folder for each kind of file, and kinds.json -> {kind: the path in it that is decoded}."""
    kinds = {}

    def new(kind, name):
        kinds[kind] = name
        (root / kind).mkdir(parents=True)
        return root / kind / name

    hu = np.add.outer(np.arange(5) * 20, np.random.default_rng(0).integers(-1000, 400, (32, 24))).astype('<i2')
    for write in (_arrays, _images, _volumes, _dicoms, _archives):
        write(new, hu)
    (root / 'kinds.json').write_text(json.dumps(kinds))
    return kinds


def _arrays(new, hu):
    np.save(new('npy', 'a.npy'), hu)
    np.save(new('npy-float', 'a.npy'), np.asfortranarray(hu / 4096. + .5))
    np.savez(new('npz', 'a.npz'), hu=hu, spacing_mm=[2., 1., 1.])
    np.savez_compressed(new('npz-deflated', 'a.npz'), hu=hu, spacing_mm=[2., 1., 1.], label='x')


def _images(new, hu):
    grey = Image.fromarray((hu[0] // 8 + 128).astype(np.uint8))
    for mode in ('L', 'RGB', 'P', 'RGBA', '1'):
        grey.convert(mode).save(new(f'png-{mode}', 'a.png'))
    deep = Image.fromarray((hu[0] + 1000).astype(np.uint16) * 40)
    deep.save(new('png-16', 'a.png'))
    (turned := Image.Exif())[274] = 6
    for name in ('a.png', 'a.jpg', 'a.tif'):
        grey.save(new(f'{name[2:]}-turned', name), exif=turned)
    grey.save(new('jpg', 'a.jpg'))
    grey.convert('CMYK').save(new('jpg-cmyk', 'a.jpg'), progressive=True)
    for kind in ('bmp', 'gif', 'tiff', 'webp'):
        grey.save(new(f'{kind}-in-png', 'a.png'), kind)
    deep.save(new('tif-16', 'a.tif'))
    deep.save(new('tif-16-white-0', 'a.tif'), tiffinfo={262: 0})
    for kind in ('tiff_lzw', 'tiff_adobe_deflate', 'jpeg', 'packbits', 'group4'):
        (grey.convert('1') if kind == 'group4' else grey).save(new(f'tif-{kind}', 'a.tif'), compression=kind)
    grey.save(new('tif-pages', 'a.tif'), save_all=True, append_images=[grey] * 3)
    (folder := new('folder-of-png', 'scan')).mkdir()
    for i in range(3):
        grey.save(folder / f'ct {i}.png')


def _volumes(new, hu):
    affine = np.diag([-.7, .8, 2.5, 1])
    nibabel.save(nibabel.Nifti1Image(hu.T, affine), new('nii', 'a.nii'))
    nibabel.save(nibabel.Nifti1Image(hu.T, affine), new('nii.gz', 'a.nii.gz'))
    nibabel.save(nibabel.Nifti2Image(hu.T.astype('>f4'), affine), new('nii-2', 'a.nii'))
    text = ('ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {}\n'
            'TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.7 0.8 2.5\nDimSize = 24 32 5\n'
            'ElementType = MET_SHORT\nElementDataFile = {}\n')
    new('mha', 'a.mha').write_bytes(text.format(False, 'LOCAL').encode() + hu.tobytes())
    new('mha-zlib', 'a.mha').write_bytes(text.format(True, 'LOCAL').encode() + zlib.compress(hu.tobytes()))
    for kind, raw in (('raw', hu.tobytes()), ('zraw', zlib.compress(hu.tobytes()))):
        path = new(f'mhd+{kind}', 'a.mhd')
        path.write_text(text.format(kind == 'zraw', f'a.{kind}'))
        path.with_suffix(f'.{kind}').write_bytes(raw)
    header = {'space': 'left-posterior-superior', 'space directions': np.diag([.7, .8, 2.5]), 'space units': ['mm'] * 3}
    for kind, name, encoding in (('nrrd', 'a.nrrd', 'raw'), ('nrrd-gzip', 'a.nrrd', 'gzip'), ('nhdr', 'a.nhdr', 'raw'),
                                 ('nhdr-gzip', 'a.nhdr', 'gzip')):
        nrrd.write(str(new(kind, name)), hu.T, header | {'encoding': encoding})


def _dicoms(new, hu):
    stored = (hu + 1024).clip(0, 4095).astype('<u2')
    for syntax in ('ExplicitVRLittleEndian', 'ImplicitVRLittleEndian', 'ExplicitVRBigEndian'):
        _ct(new(f'dcm-{syntax[:13]}', 'a.dcm'), stored[:1], getattr(uid, syntax))
    whole = new('dcm-bare', 'IM0001')
    _ct(whole, stored[:1])
    pydicom.dcmwrite(whole, Dataset(pydicom.dcmread(whole)), implicit_vr=True, little_endian=True)
    _ct(new('dcm-frames', 'a.dcm'), stored)
    (folder := new('dcm-series', 'scan')).mkdir()
    for i, plane in enumerate(stored):
        _ct(folder / f'{i}.dcm', plane[None], z=2. * i)
    _ct(new('dcm-xray', 'a.dcm'), stored[:1], modality='DX', window=True)
    for syntax in ('RLELossless', 'JPEGLossless', 'JPEGLosslessSV1', 'JPEGLSLossless', 'JPEG2000Lossless'):
        for frames in (1, 5) if syntax != 'JPEGLossless' else (1,):
            parts = [_compressed(plane, getattr(uid, syntax)) for plane in stored[:frames]]
            _ct(new(f'dcm-{syntax}-{frames}', 'a.dcm'), stored[:frames], getattr(uid, syntax), parts)
    for bits in (8, 12):
        file = io.BytesIO()
        Image.fromarray((stored[0] >> 4).astype(np.uint8)).save(file, 'JPEG')
        syntax = uid.JPEGBaseline8Bit if bits == 8 else uid.JPEGExtended12Bit
        _ct(new(f'dcm-jpeg-{bits}', 'a.dcm'), stored[:1].astype(np.uint8), syntax, [file.getvalue()])


def _ct(path, stored, syntax=uid.ExplicitVRLittleEndian, parts=(), z=0., modality='CT', window=False):
    """A CT of one slice, an enhanced CT of several, or an X-ray; parts are its compressed frames."""
    data, frames = Dataset(), []
    data.SOPClassUID = uid.EnhancedCTImageStorage if len(stored) > 1 else uid.CTImageStorage
    data.SOPInstanceUID = f'1.2.{z:g}'
    data.Modality, data.ImageType, data.SeriesInstanceUID = modality, ['ORIGINAL', 'PRIMARY', 'AXIAL'], '1.2.3'
    data.PatientID, data.PatientName, data.InstanceNumber, data.NumberOfFrames = 'ID1', 'DOE', int(z) + 1, len(stored)
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness, data.RescaleSlope, data.RescaleIntercept = [.7, .7], 2, 1, -1024
    data.SamplesPerPixel, data.PhotometricInterpretation, (data.Rows, data.Columns) = 1, 'MONOCHROME2', stored.shape[1:]
    bits = 12 if stored.itemsize == 2 else 8
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8 * stored.itemsize, bits, bits - 1, 0
    if window:
        data.WindowCenter, data.WindowWidth, data.PixelPaddingValue = 1000, 2000, 0
    if len(stored) > 1:
        for i in range(len(stored)):
            frames.append(Dataset())
            frames[-1].PlanePositionSequence = [Dataset()]
            frames[-1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2. * i]
        data.PerFrameFunctionalGroupsSequence = frames
    little = syntax != uid.ExplicitVRBigEndian
    data.PixelData = encapsulate(list(parts)) if parts else stored.astype('<u2' if little else '>u2').tobytes()
    data['PixelData'].VR = 'OB' if parts else 'OW'
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.preamble = bytes(128)
    data.save_as(path, enforce_file_format=True)


def _compressed(plane, syntax):
    """The plane as pydicom or gdcm compresses it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = f'{folder}/a', f'{folder}/b'
        _ct(source, plane[None])
        data = pydicom.dcmread(source)
        if syntax == uid.RLELossless:
            data.compress(syntax)
        else:
            import gdcm
            reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
            reader.SetFileName(source)
            change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
            assert reader.Read()
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer.SetFileName(target)
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()
            data = pydicom.dcmread(target)
        return next(generate_frames(data.PixelData, number_of_frames=1))


def _archives(new, hu):
    for kind, inside in (('png', 'folder-of-png/scan'), ('nii', 'nii'), ('npz', 'npz'), ('dcm', 'dcm-series/scan')):
        path = new(f'zip-of-{kind}', 'a.zip')
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((path.parents[1] / inside).iterdir()):
                archive.write(file, f'box/{file.name}')
