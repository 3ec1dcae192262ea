"""What the files of exams tell, of files written here by Pillow and numpy."""

import numpy as np
from dicoms import series
from PIL import Image

from covid_jax.scans.decode import files_of
from covid_jax.sources import files
from covid_jax.sources.files import Facts


def facts(address):
    return files.facts(str(address), files_of(str(address)))


def test_of_an_image_the_bytes_say_what_it_is(tmp_path):
    """Its suffix does not: of COVID-CT some .png hold JPEG."""
    path = tmp_path / 'a.png'
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(path, 'JPEG')
    assert facts(path) == Facts('JPEG', 'L', 20, 30, path.stat().st_size)
    Image.fromarray(np.zeros((30, 20, 4), np.uint8)).save(path, 'PNG')
    assert facts(path) == Facts('PNG', 'RGBA', 20, 30, path.stat().st_size)


def test_of_slices_the_first_and_all_their_bytes(tmp_path):
    for i in range(3):
        Image.fromarray(np.zeros((8, 8 + i), np.uint8)).save(tmp_path / f'{i}.png')
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert facts(tmp_path) == Facts('PNG', 'L', 8, 8, size)


def test_of_volumes_the_suffix_and_the_bytes(tmp_path):
    for name, kind in (('a.npz', 'npz'), ('b.nii.gz', 'nii.gz'), ('c.NII', 'nii')):
        (tmp_path / name).write_bytes(b'12345')
        assert facts(tmp_path / name) == Facts(kind, bytes=5)
    assert facts(f'{tmp_path / "c.NII"}::slice=3') == Facts('nii', bytes=5)


def test_of_dicom_nothing_of_the_patient(tmp_path):
    series(tmp_path / 'scan')
    found = facts(tmp_path / 'scan')
    assert found == Facts('dcm', bytes=sum(path.stat().st_size for path in (tmp_path / 'scan').iterdir()))


def test_a_phantom_has_no_file_and_what_is_broken_is_not_known(tmp_path):
    assert facts('phantom:0:0:covid') == Facts('phantom')
    (tmp_path / 'a.png').write_bytes(b'nothing')
    (tmp_path / 'empty').mkdir()
    assert facts(str(tmp_path / 'a.png')) == Facts(bytes=7)
    assert facts(str(tmp_path / 'empty')) == facts(str(tmp_path / 'none.png')) == facts('a\0b') == Facts()
