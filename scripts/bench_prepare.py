"""Files of one scan, 300 x 512 x 512, to uint8 128 x 256 x 256: ours against MONAI's and SimpleITK's usual pipelines.

    pip install torch monai SimpleITK itk
    python scripts/bench_prepare.py SCAN [--rounds=5]

SCAN: a chest CT in Hounsfield units that `decode` reads; its slices are repeated to 300 and written as DICOM (uncompressed,
and JPEG Lossless) and as PNG. Each measurement is a process with one thread, after a warm-up on the same files; the
pipelines take turns, and the ratio is that of the medians of CPU seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WINDOW, SIZE = (-1000.0, 400.0), (128, 256, 256)
FORMATS = ('dicom', 'dicom_jpeg_lossless', 'png')


def ours(folder, png):
    from covid_jax.data.prep import Prep, prepare
    from covid_jax.scans.decode import decode

    return lambda: prepare(decode(folder), Prep(WINDOW, SIZE))[..., 0]


def monai(folder, png):
    import torch
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Resize, ScaleIntensityRange

    torch.set_num_threads(1)
    low, high = (0.0, 255.0) if png else WINDOW
    scale = ScaleIntensityRange(low, high, 0.0, 255.0, clip=True)
    if png:  # a list of files is stacked along the first axis, and each is [width, height]
        steps = [LoadImage(), lambda x: x[None], scale, Resize(SIZE, mode='trilinear')]
        files = sorted(Path(folder).iterdir())
        return lambda: np.rint(Compose(steps, map_items=False)(files)[0].numpy()).astype(np.uint8).swapaxes(1, 2)
    steps = [LoadImage(), EnsureChannelFirst(), Orientation('LPS', labels=None), scale,
             Resize(SIZE[::-1], mode='trilinear')]
    return lambda: np.rint(Compose(steps)(folder)[0].numpy()).astype(np.uint8).T


def simpleitk(folder, png):
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    low, high = (0.0, 255.0) if png else WINDOW

    def run():
        reader = sitk.ImageSeriesReader()
        names = [str(f) for f in sorted(Path(folder).iterdir())] if png else reader.GetGDCMSeriesFileNames(str(folder))
        reader.SetFileNames(names)
        image = sitk.IntensityWindowing(sitk.Cast(reader.Execute(), sitk.sitkFloat32), low, high, 0.0, 255.0)
        old, size = image.GetSize(), SIZE[::-1]
        spacing = [s * n / m for s, n, m in zip(image.GetSpacing(), old, size, strict=True)]
        shift = [(b - a) / 2 for a, b in zip(image.GetSpacing(), spacing, strict=True)]  # half-pixel centres
        origin = [o + s for o, s in zip(image.GetOrigin(), shift, strict=True)]
        image = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, origin, spacing, image.GetDirection(), 0.0)
        return np.rint(sitk.GetArrayFromImage(image)).astype(np.uint8)

    return run


PIPELINES = {'covid_jax': ours, 'MONAI': monai, 'SimpleITK': simpleitk}


def measure(name, folder, out):
    """In a process of its own: CPU and wall seconds of one call, after one that is not counted; the result to `out`."""
    run = PIPELINES[name](folder, Path(folder).name == 'png')
    result = run()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    print(json.dumps({'cpu': time.process_time() - cpu, 'wall': time.perf_counter() - wall}))
    np.save(out, result)


def write(scan, root):
    """The scan as 300 slices of 512 x 512 in each format."""
    import gdcm
    import pydicom
    from PIL import Image
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    rows, columns = (np.arange(512) * n // 512 for n in scan.voxels.shape[1:])
    series, (low, high) = generate_uid(), WINDOW
    for name in FORMATS:
        (root / name).mkdir()
    for k in range(300):
        hu = np.clip(scan.voxels[k * len(scan.voxels) // 300][rows][:, columns], -1024, 3071).astype(np.int16)
        grey = np.clip((hu - low) * (255 / (high - low)), 0, 255)
        Image.fromarray(np.rint(grey).astype(np.uint8)).save(root / 'png' / f'{k:03d}.png')
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d = FileDataset(None, {}, file_meta=meta, preamble=b'\0' * 128)
        d.SOPClassUID, d.SOPInstanceUID, d.SeriesInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID, series
        d.StudyInstanceUID, d.Modality, d.InstanceNumber = series, 'CT', k + 1
        d.ImagePositionPatient, d.ImageOrientationPatient = [-160, -160, k * 1.0], [1, 0, 0, 0, 1, 0]
        d.PixelSpacing, d.SliceThickness = [0.625, 0.625], 1
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 512, 512, 1, 'MONOCHROME2'
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
        d.RescaleSlope, d.RescaleIntercept = 1, -1024
        d.PixelData = (hu + 1024).astype('<u2').tobytes()
        path = root / 'dicom' / f'{k:03d}.dcm'
        pydicom.dcmwrite(path, d, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(root / 'dicom_jpeg_lossless' / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('scan')
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    from covid_jax.scans.decode import decode

    limits = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS')
    alone = dict.fromkeys(limits, '1')
    with tempfile.TemporaryDirectory() as root:
        write(decode(args.scan), Path(root))
        print('| files | pipeline | CPU s | wall s | CPU s / ours | largest difference from ours, of 255 |')
        print('|---|---|---|---|---|---|')
        for kind in FORMATS:
            seen = {name: [] for name in PIPELINES}
            for _ in range(args.rounds):
                for name in PIPELINES:
                    code = f'import bench_prepare as b; b.measure({name!r}, {root + "/" + kind!r}, {root + "/" + name!r})'
                    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
                    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                                          env=os.environ | alone | {'PYTHONPATH': path})
                    if done.returncode:
                        sys.exit(done.stderr)
                    seen[name].append(json.loads(done.stdout.splitlines()[-1]))
            reference = np.load(f'{root}/covid_jax.npy').astype(int)
            for name, times in seen.items():
                cpu, wall = (statistics.median(t[clock] for t in times) for clock in ('cpu', 'wall'))
                ratio = cpu / statistics.median(t['cpu'] for t in seen['covid_jax'])
                gap = np.abs(np.load(f'{root}/{name}.npy').astype(int) - reference).max()
                print(f'| {kind} | {name} | {cpu:.2f} | {wall:.2f} | {ratio:.2f} | {gap} |', flush=True)


if __name__ == '__main__':
    main()
