import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.data import familiar
from covid_jax.data.familiar import FEWEST, GREYS, Known, describe, distance, limit_of, refusal
from covid_jax.data.parts import Seen
from covid_jax.data.pipeline import Dataset
from covid_jax.sources.exams import Exam

GREY = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)


def scans(rng, n, noise=20.0, level=100.0, size=24):
    """uint8 [n, 1, size, size, 1]: a disc of its own size on black, and noise."""
    y, x = np.mgrid[-1:1:size * 1j, -1:1:size * 1j]
    disc = np.hypot(y, x) < rng.uniform(0.6, 0.9, (n, 1, 1))
    values = level * disc + rng.uniform(20, 30, (n, 1, 1)) + noise * rng.standard_normal((n, size, size))
    return np.clip(values, 0, 255).astype(np.uint8)[:, None, :, :, None]


def data_set(images, patients=None, seen=()):
    """A Dataset of these images, the last of them of test."""
    n = len(images)
    exams = [Exam(f'e{i}', patients[i] if patients else f'p{i}', 'oslo', 'covid', 'train' if i < n - 1 else 'test', '') for i in range(n)]
    return Dataset(exams, np.zeros(n, np.int32), np.zeros(n, np.int32), np.arange(n)[::-1], [{'image': image} for image in images[::-1]], {}, '',
                   [''] * n, ('oslo',), seen=dict(zip([e.id for e in exams], seen, strict=False)))


def known(*seen, statistics=(), limit=float('nan')):
    return Known(np.array(statistics), limit, np.array([s.hounsfield for s in seen], bool), np.array([s.shape[0] for s in seen], int),
                 np.array([s.low for s in seen], float))


def test_a_scan_is_described_by_hand():
    """Of 16 pixels a half has 0 and a half 255: of 12 pairs along the columns none differs, along the rows 4 of 12, by 255."""
    image = np.repeat([0, 0, 255, 255], 4).astype(np.uint8).reshape(1, 4, 4, 1)
    found = describe(image)**2
    np.testing.assert_allclose(found[[0, GREYS - 1]], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found[[GREYS, -1]], [20 / 24, 4 / 24], rtol=1e-6)
    assert found.sum() == pytest.approx(2)
    np.testing.assert_array_equal(describe(image), describe(np.swapaxes(image, 1, 2)))
    steps = describe(np.array([10, 9, 7, 4], np.uint8).reshape(1, 1, 4, 1))[GREYS:]
    np.testing.assert_array_equal(np.flatnonzero(steps), [2, 3, 4])  # steps of 1, 2 and 3


def test_another_texture_of_the_same_values_is_far():
    """The same pixels, shuffled: the grey values alone would not tell."""
    rng = np.random.default_rng(0)
    image = scans(rng, 1)[0]
    shuffled = rng.permutation(image.ravel()).reshape(image.shape)
    assert np.linalg.norm(describe(image) - describe(shuffled)) > 0.2
    np.testing.assert_array_equal(describe(image)[:GREYS], describe(shuffled)[:GREYS])


def test_known_scans_are_familiar_and_others_are_not():
    rng = np.random.default_rng(0)
    knows = familiar.learn(data_set(scans(rng, 200)))

    def unlike(images):
        return np.mean([distance(knows, describe(image)) > 1 for image in images])

    assert unlike(scans(rng, 400)) < 0.08
    assert unlike(scans(rng, 50, noise=60.0)) == 1
    assert unlike(scans(rng, 50, level=200.0)) == 1


def test_the_limit_is_that_of_other_patients():
    """Each patient has two scans that are the same, and the patients are so far apart: 1, 2, 3, ... along a line."""
    n = FEWEST + 1
    places = np.repeat(np.arange(n), 2)[:, None].astype(float)
    names = [f'p{i}' for i in np.repeat(np.arange(n), 2)]
    found = limit_of(places, names)
    fifth = [np.sort(np.repeat(np.abs(np.delete(np.arange(n), i) - i), 2))[4] for i in range(n)]
    assert found == np.quantile(np.repeat(fifth, 2), 0.96) == 3
    assert np.isnan(limit_of(places[:-4], names[:-4])) and np.isfinite(limit_of(places[:-2], names[:-2]))


def test_the_fifth_nearest_counts_in_units_of_the_limit():
    knows = known(statistics=[[0.0, 0], [0, 0], [0, 0], [3, 4], [3, 4], [30, 40]], limit=2.0)
    assert distance(knows, np.zeros(2)) == 2.5
    assert np.isnan(distance(knows._replace(limit=float('nan')), np.zeros(2)))
    assert distance(knows._replace(limit=0.0), np.zeros(2)) == 5e6  # of training exams that are all the same


def test_what_is_learnt_is_of_train_alone(monkeypatch):
    images = scans(np.random.default_rng(0), 6)
    seen = [Seen((i + 1, 24, 24), None, i > 0, -float(i), 100.0 + i) for i in range(6)]
    knows = familiar.learn(data_set(images, seen=seen))
    np.testing.assert_array_equal(knows.statistics, [describe(image) for image in images[:5]])
    assert np.isnan(knows.limit) and knows.depth.tolist() == [1, 2, 3, 4, 5] and knows.hounsfield.tolist() == [False, *[True] * 4]
    assert knows.low.tolist() == [0, -1, -2, -3, -4]
    monkeypatch.setattr(familiar, 'MOST', 3)
    np.testing.assert_array_equal(familiar.learn(data_set(images)).statistics, [describe(images[i]) for i in (0, 2, 4)])
    assert not len(familiar.learn(data_set(images[:1])).statistics)
    monkeypatch.undo()
    many = scans(np.random.default_rng(0), 80)
    assert np.isnan(familiar.learn(data_set(many, patients=['anna'] * 40 + ['ben'] * 40)).limit)


def test_another_kind_of_scan_is_refused_with_the_reason():
    hu = Seen((40, 64, 64), None, True, -1000.0, 1200.0)
    grey = Seen((40, 64, 64), None, False, 0.0, 255.0)
    image = Seen((1, 64, 64), None, False, 0.0, 255.0)
    assert 'are grey values, and the run learnt from Hounsfield units' in refusal(known(hu), grey, GREY)
    assert 'are Hounsfield units, and the run learnt from grey values' in refusal(known(grey), hu, GREY)
    assert 'a single image' in refusal(known(grey), image, GREY)
    assert '40 slices, and the run learnt from single images: give one, as PATH::slice=N' in refusal(known(image), grey, GREY)
    assert 'all of it is 7' in refusal(None, hu, np.full_like(GREY, 7))
    for knows, seen in ((known(hu), hu), (known(grey, hu), hu), (known(image, grey), grey), (known(image, grey), image), (known(), grey), (None, grey)):
        assert refusal(knows, seen, GREY) == ''


def test_a_range_that_no_training_exam_has_is_refused():
    """Of two exams the least values are -1000 and -900: 300 HU more are allowed. What is greatest tells nothing of a single slice."""
    learnt = known(Seen((40, 64, 64), None, True, -1000.0, 1000.0), Seen((40, 64, 64), None, True, -900.0, 1500.0))

    def told(low, high):
        return refusal(learnt, Seen((40, 64, 64), None, True, low, high), GREY)

    assert told(-600, -100) == '' and told(-3000, 3000) == ''
    assert told(0, 255) == ('unlike the training data: its Hounsfield units are 0 to 255, and those that the run learnt from begin at -900 or '
                            'below: an offset was lost, or these are no Hounsfield units')
    assert told(-599, 2000)
    grey = Seen((40, 64, 64), None, False, 100.0, 255.0)
    assert refusal(known(grey._replace(low=-500.0)), grey, GREY) == ''  # which have no air


def test_what_is_known_is_kept(tmp_path):
    images = scans(np.random.default_rng(0), 40)
    seen = [Seen((1, 24, 24), None, True, -1000.0, 100.0)] * 40
    knows = familiar.learn(data_set(images, seen=seen))
    assert familiar.read(tmp_path) is None
    familiar.write(tmp_path, knows)
    first = (tmp_path / 'familiar.npz').read_bytes()
    found = familiar.read(tmp_path)
    for name, value in knows._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
    familiar.write(tmp_path, found)
    assert (tmp_path / 'familiar.npz').read_bytes() == first
    for damage in (first[:100], b''):
        (tmp_path / 'familiar.npz').write_bytes(damage)
        with pytest.raises(UserError, match='familiar.npz'):
            familiar.read(tmp_path)
    familiar.write(tmp_path, knows._replace(statistics=np.zeros((3, 4))))
    with pytest.raises(UserError, match='writes it anew'):
        familiar.read(tmp_path)
