"""The traps of the real images: they are there, and what a model gets to see does not hold them."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from scan_files import real

from covid_jax.scans.decode import decode
from covid_jax.sources import published_images


def test_the_format_tells_the_label_of_covid_ct_and_decoding_takes_it_away():
    of_format = defaultdict(list)
    for exam in published_images.covid_ct(real('COVID-CT'), print):
        with Image.open(exam.path) as image:
            of_format['jpg' if exam.path.lower().endswith('.jpg') else image.mode].append(exam)
    assert {exam.label for exam in of_format['jpg']} == {'NonCOVID'}
    assert {exam.label for exam in of_format['RGBA']} == {'COVID'}
    scans = [decode(exam.path) for exams in of_format.values() for exam in exams[:10]]
    assert {(scan.voxels.dtype.str, scan.voxels.shape[0], scan.hounsfield, scan.spacing) for scan in scans} == {
        ('|u1', 1, False, None)}


@pytest.mark.parametrize('name', ['COVID-CT', 'SARS-CoV-2-CT', 'LUNA16-slices', 'chest-xray'])
def test_every_real_image_decodes_to_grey(name):
    paths = [path for path in real(name).rglob('*') if path.suffix.lower() in ('.png', '.jpg')]
    for path in paths[::5]:
        scan = decode(path)
        assert scan.voxels.dtype == np.uint8 and not scan.hounsfield and scan.voxels.max() > 50
