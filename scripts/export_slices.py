"""COVID-CT-MD volumes (.npz with `hu` and `label`) -> folders of PNG slices in the layout of `data.source=folder`.

    python scripts/export_slices.py VOLUMES OUT

writes OUT/{train,test}/<label>/<patient>/<slice>.png, cap002 in test, windowed from -1000..400 HU to 0..255.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from covid_jax.data.prep import Prep, prepare
from covid_jax.scans.decode import decode
from covid_jax.sources.published import covid_ct_md


def main(volumes, out):
    for exam in covid_ct_md(volumes, print):
        scan = decode(exam.path)
        grey = prepare(scan, Prep((-1000.0, 400.0), scan.voxels.shape))[..., 0]
        folder = Path(out, 'test' if exam.patient == 'cap002' else 'train', exam.label, exam.patient)
        folder.mkdir(parents=True)
        for i, plane in enumerate(np.asarray(grey)):
            Image.fromarray(plane).save(folder / f'{i + 1}.png')
        print(folder)


if __name__ == '__main__':
    main(*sys.argv[1:])
