"""Folders of many people's pictures are no scans, and the folders of slices of scans are none of these."""

import pytest
from layouts import refused, touch

from covid_jax import sources

INTERLEAVED = [f'{"AB"[k % 2]}/COVID-{k}.png' for k in range(10)]


@pytest.mark.parametrize('files, words', [
    (['covid/pics/COVID-1.png', 'covid/pics/COVID-2.png', 'normal/1.png'], 'normal/1.png is an exam of one image, and covid/pics one of 2: classes must'),
    (['covid/1.jpg', 'covid/pics/1.jpg', 'covid/pics/2.jpg'], 'covid/1.jpg is an exam of one image, and covid/pics one of 2'),
    (['train/covid/a/1.png', 'train/covid/a/2.png', 'test/covid/a.png'], 'test/covid/a.png is an exam of one image, and train/covid/a one of 2'),
    (['covid/A/smith.png', 'covid/A/jones.png'], 'covid/A: by their names its 2 images are not numbered, as slices are (jones.png, smith.png)'),
    (['covid/A/ana1.png', 'covid/A/ben1.png', 'covid/A/ben2.png', 'covid/A/eva7.png'], 'its 4 images are not numbered'),
    (['covid/A/00001362_014.png', 'covid/A/00001999_000.png'], 'its 2 images are of 2 articles or patients'),
    (['covid/A/2020.02.22.20024927-p18-66%0.png', 'covid/A/2020.02.25.20021568-p24-1%1.png'], 'are of 2 articles or patients'),
    ([f'covid/{name}' for name in INTERLEAVED], 'covid: one count goes to and fro between the images of its 2 folders (A/COVID-0.png, ')])
def test_folders_of_many_people_s_pictures_are_refused_with_the_way_out(tmp_path, files, words):
    touch(tmp_path, *files, *(['normal/n.npz'] if not files[0].startswith('train') else []))
    line = refused(sources.folder, tmp_path)
    assert words in line and 'move the images themselves into the folder of the class, or give each a row of a manifest' in line


@pytest.mark.parametrize('files', [
    ['a/1.png', 'a/2.png', 'b/1.png'], ['a/slice_-5.0.png', 'a/slice_2.5.png'], ['a/IM-0001-0001.png', 'a/IM-0001-0002.png'],
    ['a/ct 1.png', 'a/ct 2.png', 'a/scout.png'],  # most are
    ['a/slice a.png', 'a/slice b.png'], ['a/1.png', 'a/(2).png'], ['a/z5.5e-17.png', 'a/z-2.5.png'],
    ['a/00001362_001.png', 'a/00001362_002.png'],  # one patient
    ['a/x.png', 'b.npz'], ['a/x.npz', 'a/front.gif', 'a/side.gif', 'b.png'], ['a/1.png', 'a/2.png', 'b.tif'], ['a/1.png', 'a/2.png', 'b.TIFF'], ['a/1.png', 'a/2.png', 'b.nii.gz'],
    ['a/1.png', 'a/2.png', 'a_mask.png'],
    [f'{"AB"[k // 10]}/{k}.png' for k in range(20)],  # one after the other, as a scanner numbers its series
    [f'{"AB"[k % 2]}/{k // 2}.png' for k in range(20)], [*INTERLEAVED, 'A/COVID-1.png'],  # a number comes twice
    INTERLEAVED[:9]])
def test_slices_of_scans_are_read(tmp_path, files):
    touch(tmp_path, *(f'covid/{name}' for name in files))
    assert {exam.id for exam in sources.folder(tmp_path)} >= {f'covid/{name.split("/")[0]}' for name in files}


def test_a_manifest_that_names_a_folder_is_believed(tmp_path):
    touch(tmp_path, 'A/smith.png', 'A/jones.png', 'b.png')
    (tmp_path / 'm.csv').write_text('path,label\nA,covid\nb.png,covid\n')
    assert len(sources.manifest(tmp_path / 'm.csv')) == 2
