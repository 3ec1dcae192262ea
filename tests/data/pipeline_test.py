import itertools
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import order as orders
from covid_jax.data import pipeline
from covid_jax.sources.exams import Exam


def dataset(n=13, val=5, label=None, site=None):
    """Images whose every voxel is the exam's number, read from the last to the first; n in train, of these labels and sites."""
    exams = [Exam(f'e{i}', f'p{i}', '', 'covid', 'train' if i < n else 'val', '') for i in range(n + val)]
    images = [{'image': np.full((2, 3, 3, 1), i, np.uint8)} for i in range(n + val)]
    label = np.arange(n + val) % 2 if label is None else np.array([*label, *[0] * val])
    site = np.array([*(site or [0] * n), *[0] * val])
    return pipeline.Dataset(exams, label.astype(np.int32), site.astype(np.int32), np.arange(n + val)[::-1].copy(), images, {},
                            '', [], ('oslo', 'rome', 'bonn'))


SITES = [0] * 28 + [1] * 8 + [2] * 12
LABELS = [0] * 20 + [1] * 8 + [2] * 12
OF_KIND = {'shuffle': dataset(), 'by_site': dataset(48, site=SITES), 'balanced': dataset(40, label=LABELS)}


def rows(hosts, start, count, batch=8, seed=3, kind='shuffle'):
    """The concatenation of the hosts' rows of `count` batches."""
    data = OF_KIND[kind]
    order = orders.make(data, kind, batch, seed)
    with ExitStack() as stack:
        feeds = [stack.enter_context(pipeline.train_batches(data, order, batch, start, h, hosts)) for h in range(hosts)]
        steps = [[next(f) for f in feeds] for _ in range(count)]
    return [{k: np.concatenate([part[k] for part in parts]) for k in parts[0]} for parts in steps]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for k in x:
            np.testing.assert_array_equal(x[k], y[k])


@pytest.mark.parametrize('kind', OF_KIND)
def test_any_number_of_hosts_and_a_restart_at_any_step_give_the_same_rows(kind):
    one = rows(1, 0, 7, 12, kind=kind)
    for hosts, start in ((2, 0), (4, 1), (1, 3), (2, 5)):
        same(one[start:start + 2], rows(hosts, start, 2, 12, kind=kind))


def test_the_rows_of_shuffle_are_those_of_ever():
    """Recorded when there was no other order: a run that goes on, goes on with its own rows."""
    assert [b['image'][:, 0, 0, 0, 0].tolist() for b in rows(1, 0, 4)] == [
        [13, 11, 8, 10, 12, 14, 16, 5], [7, 17, 15, 9, 6, 9, 16, 14], [10, 8, 7, 12, 13, 15, 5, 6], [17, 11, 5, 17, 10, 8, 7, 16]]
    assert orders.make(dataset(), 'shuffle', 8, 3).epoch == 13 / 8


def test_every_scan_once_an_epoch_in_a_new_order():
    draws = list(itertools.chain(*(b['image'][:, 0, 0, 0, 0] for b in rows(1, 0, 13, batch=4))))
    epochs = [draws[i:i + 13] for i in range(0, 52, 13)]
    assert all(sorted(e) == sorted(epochs[0]) and len(set(e)) == 13 for e in epochs)
    assert len({tuple(e) for e in epochs}) == 4


def test_draw_is_the_running_number_and_label_goes_with_its_image():
    batches = rows(1, 2, 3)
    np.testing.assert_array_equal(np.concatenate([b['draw'] for b in batches]), np.arange(16, 40))
    for b in batches:
        assert b['draw'].dtype == np.uint32 and b['image'].dtype == np.uint8
        assert b.keys() == {'image', 'label', 'site', 'draw'}
        np.testing.assert_array_equal(b['label'], (17 - b['image'][:, 0, 0, 0, 0].astype(int)) % 2)


def test_another_seed_is_another_order():
    assert any((a['image'] != b['image']).any() for a, b in zip(rows(1, 0, 2), rows(1, 0, 2, seed=4), strict=True))


def drawn(data, kind, batch, count, seed=0):
    """Positions of `count` batches, one after the other, and the epoch's length."""
    order = orders.make(data, kind, batch, seed)
    return np.concatenate([order.positions[i] for i in range(count)]), order.epoch


def test_by_site_is_as_many_of_each_in_every_batch():
    """Of 28, 8 and 12 exams two each in a batch: the largest site is read in 14 batches, and each once in every pass."""
    data = OF_KIND['by_site']
    found, epoch = drawn(data, 'by_site', 6, 28)
    assert epoch == 14 and drawn(data, 'by_site', 15, 1)[1] == 28 / 5
    assert data.site[found].tolist() == [0, 1, 2] * 56
    for first, size in ((0, 28), (28, 8), (36, 12)):
        stream = found[(found >= first) & (found < first + size)]
        passes = stream[:56 // size * size].reshape(-1, size).tolist()
        assert all(sorted(one) == list(range(first, first + size)) for one in passes)
        assert len({tuple(one) for one in passes}) == len(passes)
    assert (drawn(data, 'by_site', 6, 4, seed=1)[0] != found[:24]).any()


def test_by_site_of_one_site_is_every_exam_once_a_pass():
    found, epoch = drawn(dataset(20), 'by_site', 5, 8)
    assert epoch == 4 and all(sorted(one) == list(range(20)) for one in found.reshape(2, 20)) and (found[:20] != found[20:]).any()


def test_sites_of_one_size_are_shuffled_apart():
    """An exam has not the same neighbour of the other site in every pass."""
    found, epoch = drawn(dataset(16, site=[0] * 8 + [1] * 8), 'by_site', 2, 24)
    assert epoch == 8 and len({tuple(pair) for pair in found.reshape(-1, 2).tolist()}) > 16


def test_balanced_repeats_the_rarer_classes():
    """Of 20, 8 and 12 exams an epoch has 60, 20 of each class: those of the first once, of 8 twice or thrice, of 12 once or
    twice."""
    data = OF_KIND['balanced']
    found, epoch = drawn(data, 'balanced', 20, 15)
    assert epoch == 3 and drawn(data, 'balanced', 8, 1)[1] == 7.5
    counts = [np.bincount(one, minlength=40).tolist() for one in found.reshape(5, 60)]
    for count in counts:
        assert count[:20] == [1] * 20
        assert Counter(count[20:28]) == {2: 4, 3: 4}
        assert Counter(count[28:]) == {1: 4, 2: 8}
    assert len({tuple(count[20:28]) for count in counts}) > 1
    orders = data.label[found].reshape(5, 60)
    assert len({tuple(one) for one in orders.tolist()}) == 5
    assert 10 < (orders[0, 1:] == orders[0, :-1]).sum() < 30  # of 59 neighbours 19 by chance
    assert (drawn(data, 'balanced', 20, 2, seed=1)[0] != found[:40]).any()


@pytest.mark.parametrize('data, kind, batch, words', [
    (dataset(), 'alphabet', 8, 'order=alphabet must be one of shuffle, by_site, balanced'),
    (OF_KIND['by_site'], 'by_site', 8, r'batch=8 does not divide over 3 sites \(bonn, oslo, rome\).*a multiple of 3'),
    (dataset(4, label=[0, 1, -1, -1]), 'balanced', 4, '2 exams to learn from have no label: take --config.data.use=labelled'),
    (dataset(4, label=[1] * 4), 'balanced', 4, 'needs two classes'),
])
def test_an_order_that_cannot_be_is_refused(data, kind, batch, words):
    with pytest.raises(UserError, match=words) as error:
        orders.make(data, kind, batch, 0)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('hosts', [1, 2])
def test_evaluation_drops_nothing_and_repeats_the_last(hosts):
    with ExitStack() as stack:
        feeds = [stack.enter_context(pipeline.eval_batches(dataset(), 'val', 4, h, hosts)) for h in range(hosts)]
        batches = [list(f) for f in feeds]
    batches = [{k: np.concatenate([part[k] for part in parts]) for k in parts[0]} for parts in zip(*batches, strict=True)]
    assert [b['image'][:, 0, 0, 0, 0].tolist() for b in batches] == [[4, 3, 2, 1], [0, 0, 0, 0]]
    assert [b['draw'].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(b.keys() == {'image', 'label', 'site', 'draw'} for b in batches)


PLANES = [(4, 4), (4, 8), (7, 4), (5, 4)]  # of the exams in turn


def of_aspects():
    """The same, each of its own shape, on a canvas of 9 x 9."""
    plain = dataset()
    images = [{'image': np.full((2, *PLANES[i % 4], 1), i + 1, np.uint8)} for i in range(18)]
    return plain._replace(images=images, canvas=9)


@pytest.mark.parametrize('hosts', [1, 2])
def test_scans_of_their_own_shapes_are_padded(hosts):
    """Each image is that of its label and no other host's, with its extent."""
    data = of_aspects()
    order = orders.make(data, 'shuffle', 8, 3)
    with ExitStack() as stack:
        feeds = [stack.enter_context(pipeline.train_batches(data, order, 8, 0, h, hosts)) for h in range(hosts)]
        feeds += [stack.enter_context(pipeline.eval_batches(data, 'val', 8, h, hosts)) for h in range(hosts)]
        batches = [next(feed) for feed in feeds]
    found = {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}
    assert found['image'].shape == (16, 2, 9, 9, 1)
    number = found['image'][:, 0, 0, 0, 0].astype(int) - 1
    assert number.tolist() == [13, 11, 8, 10, 12, 14, 16, 5, 4, 3, 2, 1, 0, 0, 0, 0]  # as of one size, in the order of ever
    np.testing.assert_array_equal(found['extent'], [PLANES[i % 4] for i in number])
    for image, i, (height, width) in zip(found['image'], number, found['extent'], strict=True):
        expected = np.zeros((2, 9, 9, 1))
        expected[:, :height, :width] = i + 1
        np.testing.assert_array_equal(image, expected)


def load(c, root, labelled=True, say=print):
    return pipeline.prepare(pipeline.survey(c, root, labelled, say), root, 1, say)


def manifest(tmp_path, rows, columns='path,label,patient,split'):
    for name in 'abcde':
        hu = np.random.default_rng(ord(name)).integers(-1000, 400, (3, 8, 8)).astype(np.int16)
        np.savez(tmp_path / f'{name}.npz', hu=hu)
    (tmp_path / 'scans.csv').write_text(f'{columns}\n{rows}')
    c = base()
    c.data.update(source='manifest', root=str(tmp_path / 'scans.csv'), workers=1)
    c.prep.size = (3, 8, 8)
    return c


def test_labels_splits_and_sites_the_ones_that_are_trained_on_first(tmp_path):
    rows = ('a.npz,COVID-19,athens,test\nb.npz,covid,rome,train\nc.npz,cap,oslo,train\nd.npz,normal,rome,val\n'
            'e.npz,covid,bonn,val')
    d = load(manifest(tmp_path, rows, 'path,label,site,split'), tmp_path / 'store')
    assert [e.split for e in d.exams] == ['test', 'train', 'train', 'val', 'val'] and d.label.tolist() == [1, 1, 0, 0, 1]
    assert d.sites == ('oslo', 'rome', 'athens', 'bonn') and [d.sites[n] for n in d.site] == [e.site for e in d.exams]


@pytest.mark.parametrize('rows, message', [
    ('a.npz,covid,p1,train\nb.npz,influenza,p2,train\n', 'b.npz: .*influenza.*not declared'),
    ('a.npz,covid,p1,train\nb.npz,normal,p1,test\n', 'p1'),
])
def test_what_a_user_got_wrong_is_one_line(tmp_path, rows, message):
    with pytest.raises(UserError, match=message) as error:
        load(manifest(tmp_path, rows), tmp_path / 'store')
    assert '\n' not in str(error.value)


def test_the_same_bytes_in_two_splits(tmp_path):
    c = manifest(tmp_path, 'a.npz,covid,p1,train\nb.npz,normal,p2,train\nc.npz,covid,p3,test\n')
    (tmp_path / 'c.npz').write_bytes((tmp_path / 'a.npz').read_bytes())
    with pytest.raises(UserError, match='a.npz.*c.npz'):
        load(c, tmp_path / 'store')


def test_images_that_are_the_same_without_their_middle_are_two(tmp_path):
    """Two scans may well be the same without their lungs; with them they are one scan in two splits."""
    for i in range(2):
        image = np.full((1, 10, 10), 50, np.uint8)
        image[0, 5, 2] = i
        np.save(tmp_path / f'{i}.npy', image)
    (tmp_path / 'table.csv').write_text('path,label,split\n0.npy,covid,train\n1.npy,covid,test\n')
    c = base()
    c.data.update(source='manifest', root=str(tmp_path / 'table.csv'), workers=1)
    c.prep.update(size=(1, 10, 10), blank=True)
    assert len(load(c, tmp_path / 'store').exams) == 2
    c.prep.update(size=(1, 1, 1), blank=False)
    with pytest.raises(UserError, match='more than once'):
        load(c, tmp_path / 'store')
