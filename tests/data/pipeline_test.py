import itertools
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import pipeline
from covid_jax.data.exams import Exam


def dataset(n=13, val=5):
    """Images whose every voxel is the exam's number."""
    exams = [Exam(f'e{i}', f'p{i}', '', 'covid', 'train' if i < n else 'val', '') for i in range(n + val)]
    images = [{'image': np.full((2, 3, 3, 1), i, np.uint8)} for i in range(n + val)]
    label = np.arange(n + val, dtype=np.int32) % 2
    return pipeline.Dataset(exams, label, np.zeros(n + val, np.int32), np.arange(n + val)[::-1].copy(), images, {}, '')


def rows(hosts, start, count, batch=8, seed=3):
    """The concatenation of the hosts' rows of `count` batches."""
    with ExitStack() as stack:
        feeds = [stack.enter_context(pipeline.train_batches(dataset(), batch, seed, start, h, hosts)) for h in range(hosts)]
        steps = [[next(f) for f in feeds] for _ in range(count)]
    return [{k: np.concatenate([part[k] for part in parts]) for k in parts[0]} for parts in steps]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for k in x:
            np.testing.assert_array_equal(x[k], y[k])


def test_any_number_of_hosts_sees_the_same_rows_in_the_same_order():
    one = rows(1, 0, 10)
    same(one, rows(2, 0, 10))
    same(one, rows(4, 0, 10))


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_a_restart_goes_on_also_on_another_number_of_hosts(hosts):
    same(rows(1, 0, 10)[6:], rows(hosts, 6, 4))


def test_every_scan_once_an_epoch_in_a_new_order():
    draws = list(itertools.chain(*(b['image'][:, 0, 0, 0, 0] for b in rows(1, 0, 13, batch=4))))
    epochs = [draws[i:i + 13] for i in range(0, 52, 13)]
    assert all(sorted(e) == sorted(epochs[0]) and len(set(e)) == 13 for e in epochs)
    assert len({tuple(e) for e in epochs}) == 4


def test_draw_is_the_running_number_and_label_goes_with_its_image():
    batches = rows(1, 2, 3)
    np.testing.assert_array_equal(np.concatenate([b['draw'] for b in batches]), np.arange(16, 40))
    for b in batches:
        assert b['draw'].dtype == np.uint32 and b['image'].dtype == np.uint8 and b['mask'].all()
        np.testing.assert_array_equal(b['label'], (17 - b['image'][:, 0, 0, 0, 0].astype(int)) % 2)


def test_another_seed_is_another_order():
    assert any((a['image'] != b['image']).any() for a, b in zip(rows(1, 0, 2), rows(1, 0, 2, seed=4), strict=True))


@pytest.mark.parametrize('hosts', [1, 2])
def test_evaluation_drops_nothing_and_pads_with_mask(hosts):
    with ExitStack() as stack:
        feeds = [stack.enter_context(pipeline.eval_batches(dataset(), 'val', 4, h, hosts)) for h in range(hosts)]
        batches = [list(f) for f in feeds]
    batches = [{k: np.concatenate([part[k] for part in parts]) for k in parts[0]} for parts in zip(*batches, strict=True)]
    assert [b['mask'].tolist() for b in batches] == [[True] * 4, [True, False, False, False]]
    seen = np.concatenate([b['image'][b['mask'], 0, 0, 0, 0] for b in batches])
    np.testing.assert_array_equal(seen, [4, 3, 2, 1, 0])


def manifest(tmp_path, text):
    for name in 'abcdef':
        hu = np.random.default_rng(ord(name)).integers(-1000, 400, (3, 8, 8)).astype(np.int16)
        np.savez(tmp_path / f'{name}.npz', hu=hu)
    (tmp_path / 'scans.csv').write_text('path,label,patient,split\n' + text)
    c = base()
    c.data.update(source='manifest', root=str(tmp_path / 'scans.csv'), workers=1)
    c.prep.size = (3, 8, 8)
    return c


def test_labels_sites_and_splits_of_a_manifest(tmp_path):
    c = manifest(tmp_path, 'a.npz,COVID-19,p1,train\nb.npz,normal,p2,train\nc.npz,cap,p3,test\nd.npz,covid,p4,val\n')
    d = pipeline.load(c, tmp_path / 'store')
    assert [e.split for e in d.exams] == ['train', 'train', 'test', 'val'] and d.label.tolist() == [1, 0, 0, 1]


def test_the_sites_that_are_trained_on_are_the_first(tmp_path):
    c = manifest(tmp_path, '')
    rows = ('a,covid,athens,test', 'b,covid,rome,train', 'c,normal,oslo,train', 'd,normal,rome,val', 'e,covid,bonn,val')
    (tmp_path / 'scans.csv').write_text('\n'.join(['path,label,site,split', *(row.replace(',', '.npz,', 1) for row in rows)]))
    d = pipeline.load(c, tmp_path / 'store')
    assert {e.site: n for e, n in zip(d.exams, d.site.tolist(), strict=True)} == {'oslo': 0, 'rome': 1, 'athens': 2, 'bonn': 3}


@pytest.mark.parametrize('text,message', [
    ('a.npz,covid,p1,train\nb.npz,influenza,p2,train\n', 'influenza.*not declared'),
    ('a.npz,covid,p1,train\nb.npz,normal,p1,test\n', 'p1'),
    ('a.npz,covid,p1,train\nnone.npz,normal,p2,test\n', 'none.npz'),
])
def test_what_a_user_got_wrong_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        pipeline.load(manifest(tmp_path, text), tmp_path / 'store')
    assert '\n' not in str(error.value)


def test_the_same_bytes_in_two_splits(tmp_path):
    c = manifest(tmp_path, 'a.npz,covid,p1,train\nb.npz,normal,p2,train\nc.npz,covid,p3,test\n')
    (tmp_path / 'c.npz').write_bytes((tmp_path / 'a.npz').read_bytes())
    with pytest.raises(UserError, match='a.npz.*c.npz'):
        pipeline.load(c, tmp_path / 'store')


def test_each_source_draws_the_splits_that_it_does_not_name(tmp_path):
    """One site names train and val, for all its patients; the other nothing, and draws its own val and test."""
    for site, splits in (('oslo', ('train', 'val')), ('rome', ('',))):
        for i in range(20):
            folder = tmp_path / site / splits[i % len(splits)] / ('covid' if i % 4 < 2 else 'normal')
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f'{i}.npy', np.random.default_rng([i, len(site), ord(site[0])]).integers(0, 255, (2, 4, 4), np.uint8))
    c = base()
    c.data.update(source='folder,folder', root=f'{tmp_path}/oslo,{tmp_path}/rome', workers=1, val=0.2, test=0.2)
    c.prep.size = (2, 4, 4)
    d = pipeline.load(c, tmp_path / 'store')
    counts = Counter((e.site, e.split) for e in d.exams)
    assert counts == {('oslo', 'train'): 10, ('oslo', 'val'): 10, ('rome', 'train'): 12, ('rome', 'val'): 4, ('rome', 'test'): 4}
    assert np.unique(d.site).tolist() == [0, 1]
    c.data.held_out = ('rome/covid/0.npy',)
    d = pipeline.load(c, tmp_path / 'store')
    assert [e.id for e in d.exams if e.split == 'test'] == ['rome/covid/0.npy']
    c.data.held_out = ('nobody',)
    with pytest.raises(UserError, match='nobody'):
        pipeline.load(c, tmp_path / 'store')


def test_folds_go_past_a_source_that_has_nothing_to_draw(tmp_path):
    """A site of unlabelled scans or of official splits stays as it is while the other one is dealt out."""
    for site, split in (('oslo', 'train'), ('rome', '')):
        for i in range(10):
            folder = tmp_path / site / split / ('covid' if i % 2 else 'normal')
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f'{i}.npy', np.random.default_rng([i, ord(site[0])]).integers(0, 255, (2, 4, 4), np.uint8))
    c = base()
    c.data.update(source='folder,folder', root=f'{tmp_path}/oslo,{tmp_path}/rome', workers=1)
    c.prep.size = (2, 4, 4)
    c.folds = 5
    tested = []
    for fold in range(5):
        d = pipeline.load(c, tmp_path / 'store', fold)
        assert {e.split for e in d.exams if e.site == 'oslo'} == {'train'}
        tested += [e.id for e in d.exams if e.split == 'test']
    assert len(tested) == len(set(tested)) == 10
