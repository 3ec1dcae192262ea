"""What looks alike is one patient: signatures, clusters, and a data set that is joined before it is split."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from scan_files import real
from scipy.ndimage import gaussian_filter

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import duplicates, pipeline
from covid_jax.data.prep import prepare
from covid_jax.scans.decode import decode


def texture(seed, size=128):
    """A picture of blobs, uint8 [size, size] in 30..170, that no other seed has."""
    blobs = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), size / 25)
    return np.uint8(100 + 70 * np.clip(blobs / np.abs(blobs).max(), -1, 1))


def of_file(path):
    return duplicates.signature(prepare(decode(path), duplicates.THUMBNAIL))


def of_picture(picture):
    """The signature of a picture [128, 128]."""
    small = picture.reshape(64, 2, 64, 2).mean((1, 3)).astype(np.uint8)
    return duplicates.signature(small[None, :, :, None])


def test_a_signature_is_of_mean_0_and_length_1_and_its_products_are_correlations():
    a, b = of_picture(texture(0)), of_picture(texture(1))
    assert a.dtype == np.float32 and a.shape == (1024,)
    assert abs(a.mean()) < 1e-6 and abs(a @ a - 1) < 1e-5
    assert abs(a @ b - np.corrcoef(a, b)[0, 1]) < 1e-5 and abs(a @ b) < 0.3


def test_brightness_contrast_and_a_slow_shade_change_no_signature_and_a_flat_image_is_like_none():
    picture = texture(0)
    shade = np.linspace(0, 60, 128)[None, :]
    changed = [of_picture(np.uint8(other)) for other in (picture / 2, picture + 50, picture + shade)]
    assert min(of_picture(picture) @ other for other in changed) > 0.97
    assert not of_picture(np.full((128, 128), 90, np.uint8)).any()


def test_copies_in_another_size_or_quality_are_alike_and_mirrored_ones_are_not(tmp_path):
    picture = Image.fromarray(texture(0))
    picture.save(tmp_path / 'a.png')
    picture.resize((90, 90)).save(tmp_path / 'small.png')
    picture.save(tmp_path / 'coarse.jpg', quality=30)
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / 'mirrored.png')
    first = of_file(tmp_path / 'a.png')
    likeness = {path.stem: first @ of_file(path) for path in tmp_path.iterdir()}
    assert likeness['small'] > 0.95 and likeness['coarse'] > 0.95 and likeness['mirrored'] < 0.5


def test_a_chain_of_likeness_is_one_cluster():
    """Angles of 0, 20 and 40 degrees: cos 20 = 0.94, cos 40 = 0.77. 90 is far from all."""
    angles = np.deg2rad([0, 90, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert list(duplicates.clusters(vectors, 0.9)) == [0, 1, 0, 0]
    assert list(duplicates.clusters(vectors, 0.95)) == [0, 1, 2, 3]
    assert list(duplicates.clusters(np.zeros((2, 2), np.float32), 0.9)) == [0, 1]


def test_clusters_are_those_of_a_plain_search_however_many_are_compared_at_once(monkeypatch, rng):
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = list(range(60))
    for i in range(60):
        for j in range(60):
            if vectors[i] @ vectors[j] > 0.97:
                expected = [expected[i] if number == expected[j] else number for number in expected]
    assert 10 < len(set(expected)) < 55
    for block in (7, 1024):
        monkeypatch.setattr(duplicates, 'BLOCK', block)
        found = duplicates.clusters(vectors, 0.97)
        assert len(set(found)) == len(set(zip(found, expected, strict=True))) == len(set(expected))


def manifest(root, rows):
    """A config of rows (picture, file, label, patient, split); a picture of None is a broken file."""
    for picture, name, *_ in rows:
        if picture is None:
            (root / name).write_bytes(b'broken')
        else:
            Image.fromarray(texture(picture)).resize((100 + len(name),) * 2).save(root / name)
    lines = [','.join(row[1:]) for row in rows]
    (root / 'm.csv').write_text('\n'.join(['path,label,patient,split', *lines]))
    c = base()
    c.data.update(source='manifest', root=str(root / 'm.csv'), group='clusters', workers=1)
    return c


def test_near_duplicates_are_one_patient_of_one_split_and_whole_patients_are_joined(tmp_path):
    """Picture 0 is of p2 and p1, which also has picture 1, as has the image without a patient: all are one. The labels of
    picture 2 differ."""
    rows = [(0, 'a.png', 'covid', 'p2', ''), (0, 'aa.png', 'covid', 'p1', ''), (1, 'b.png', 'covid', 'p1', ''),
            (1, 'bb.png', 'covid', '', ''), (2, 'c.png', 'normal', 'p3', ''), (2, 'cc.png', 'covid', 'p4', ''),
            (None, 'd.png', 'covid', 'p5', ''), *((n, f'{n}.png', 'normal', f'n{n}', '') for n in range(10, 16))]
    c = manifest(tmp_path, rows)
    c.data.split = 'drawn'
    said = []
    patients = {e.id: e.patient for e in pipeline.survey(c, tmp_path / 'store', say=said.append).exams}
    assert [patients[name] for name in ('a.png', 'aa.png', 'b.png', 'bb.png')] == ['bb.png'] * 4  # the first in the alphabet
    assert [patients[name] for name in ('c.png', 'cc.png', 'd.png')] == ['p3', 'p3', 'p5']
    assert all(patients[f'{n}.png'] == f'n{n}' for n in range(10, 16))
    assert said == ['manifest: by near duplicates 13 exams of 12 patients are 9 groups, the largest of 4 exams; 1 cannot be read',
                    'manifest: 1 cluster of near duplicates in two classes, look at them (c.png = cc.png)']
    c.folds = 3
    tested = []
    for c.fold in range(3):
        splits = defaultdict(set)
        for e in pipeline.survey(c, tmp_path / 'store', say=said.append).exams:
            splits[e.patient].add(e.split)
        assert all(len(found) == 1 for found in splits.values())
        tested += [patient for patient, found in splits.items() if found == {'test'}]
    assert sorted(tested) == sorted({'bb.png', 'p3', 'p5', *(f'n{n}' for n in range(10, 16))})
    first = pipeline.survey(c, tmp_path / 'store').digest
    c.data.group = 'source'
    assert pipeline.survey(c, tmp_path / 'store').digest != first


def test_near_duplicates_in_two_splits_of_a_source_are_refused(tmp_path):
    c = manifest(tmp_path, [(0, 'a.png', 'covid', '', 'train'), (0, 'aa.png', 'covid', '', 'val'), (1, 'b.png', 'normal', '', 'train')])
    with pytest.raises(UserError, match=r'manifest: 1 cluster .* two splits .*\(a.png = aa.png\): take --config.data.split=drawn, or'):
        pipeline.survey(c, tmp_path / 'store')


def test_a_near_duplicate_without_a_split_or_a_label_contradicts_none(tmp_path):
    """It is drawn with its patient, and says nothing of the class."""
    c = manifest(tmp_path, [(0, 'a.png', 'covid', '', 'train'), (0, 'aa.png', '', '', ''), (1, 'b.png', 'normal', '', 'train')])
    said = []
    exams = {e.id: e for e in pipeline.survey(c, tmp_path / 'store', labelled=False, say=said.append).exams}
    assert exams['aa.png'].patient == 'a.png' and not any('two classes' in line for line in said)


def test_neighbouring_real_slices_are_found():
    """Slices of the same class that are neighbours in the numbering, and 20 others."""
    folder = real('SARS-CoV-2-CT')
    neighbours = [folder / f'COVID/Covid ({n}).png' for n in (263, 264, 265, 266)]
    others = sorted((folder / 'non-COVID').iterdir())[:200:10]
    found = duplicates.clusters(np.array([of_file(path) for path in (*neighbours, *others)]))
    assert len(set(found[:4])) == 1 and len(set(found[4:])) == 20 and found[0] not in found[4:]
