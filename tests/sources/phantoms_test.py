"""The phantoms as exams: shares of labels, sites and untold labels, splits that share nobody, and the default as it was."""

import hashlib
from collections import Counter

import pytest

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import store
from covid_jax.sources.phantoms import phantoms


def test_half_is_covid_and_splits_share_no_phantom():
    exams = phantoms(5, train=16, val=8, test=8)
    assert Counter((exam.split, exam.label) for exam in exams) == {
        ('train', 'covid'): 8, ('train', 'normal'): 4, ('train', 'pneumonia'): 4,
        ('val', 'covid'): 4, ('val', 'normal'): 2, ('val', 'pneumonia'): 2,
        ('test', 'covid'): 4, ('test', 'normal'): 2, ('test', 'pneumonia'): 2}
    assert len({exam.id for exam in exams}) == len({exam.patient for exam in exams}) == 32
    assert [exam.path for exam in exams if exam.split == 'val'][1] == 'phantom:16:1:normal'


def test_the_default_is_what_it_always_was(tmp_path):
    """Ids, labels, splits, addresses and their order, and the key in the store, from before there were kinds and sites."""
    exams = phantoms(**base().data.phantom)
    listed = '\n'.join(f'{exam.id} {exam.label} {exam.split} {exam.path}' for exam in exams)
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == 'd21f8ad5d9ec2535'
    assert {exam.site for exam in exams} == {'phantom'}
    assert store.content_hashes(exams[:1], tmp_path) == [hashlib.sha256(b'phantom:0:0:covid version 1').hexdigest()]


def test_no_seed_trains_on_the_test_phantoms_of_another():
    def bodies(seed, split):
        return {exam.path.rsplit(':', 1)[0] for exam in phantoms(seed, 4, 4, 4) if exam.split == split}
    train = set.union(*(bodies(seed, 'train') for seed in range(20)))
    test = set.union(*(bodies(seed, 'test') for seed in range(20)))
    assert len(train) == len(test) == 80 and not train & test


@pytest.mark.parametrize('share, expected', [
    (0.0, {'normal': 20, 'pneumonia': 20}), (0.1, {'covid': 4, 'normal': 18, 'pneumonia': 18}),
    (0.7, {'covid': 28, 'normal': 6, 'pneumonia': 6}), (1.0, {'covid': 40})])
def test_the_share_of_covid_holds_in_every_split(share, expected):
    exams = phantoms(0, 40, 40, 40, covid=share)
    for split in ('train', 'val', 'test'):
        assert Counter(exam.label for exam in exams if exam.split == split) == expected


@pytest.mark.parametrize('sites', [2, 3, 4])
def test_sites_share_each_class_of_each_split_evenly(sites):
    exams = phantoms(0, 48, 24, 24, kind='slice', sites=sites)
    count = Counter((exam.split, exam.label, exam.site) for exam in exams)
    assert {site for *_, site in count} == {f'site{k}' for k in range(sites)}
    for split in ('train', 'val', 'test'):
        for label in ('covid', 'normal', 'pneumonia'):
            of_site = [count[split, label, f'site{k}'] for k in range(sites)]
            assert max(of_site) - min(of_site) <= 1
    assert all(exam.path.endswith(f'{exam.label}:{exam.site}') for exam in exams)
    alone = phantoms(0, 48, 24, 24, kind='slice')  # the same bodies
    assert [exam.id for exam in alone] == [exam.id for exam in exams]
    assert [exam.path for exam in alone] == [exam.path.rpartition(':')[0] for exam in exams]


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 1.0])
def test_untold_labels_are_of_training_exams_and_of_every_class_and_site(share):
    told = phantoms(0, 64, 16, 16, sites=2)
    exams = phantoms(0, 64, 16, 16, sites=2, unlabelled=share)
    assert exams == phantoms(0, 64, 16, 16, sites=2, unlabelled=share)
    assert [exam._replace(label='') for exam in exams] == [exam._replace(label='') for exam in told]
    untold = [before for before, after in zip(told, exams, strict=True) if after.label == '']
    assert len(untold) == 64 * share and {exam.split for exam in untold} <= {'train'}
    count = Counter((exam.label, exam.site) for exam in untold)
    for label, of_label in (('covid', 32), ('normal', 16), ('pneumonia', 16)):
        for site in ('site0', 'site1'):
            assert count[label, site] == of_label / 2 * share


@pytest.mark.parametrize('wrong, word', [
    ({'kind': 'mri'}, 'ct, slice, xray'), ({'sites': 0}, '1 to 4'), ({'sites': 5}, '1 to 4'), ({'covid': 1.5}, 'covid=1.5'),
    ({'unlabelled': -0.1}, 'unlabelled=-0.1')])
def test_what_cannot_be_is_one_line_that_names_the_flag(wrong, word):
    with pytest.raises(UserError, match='--config.data.phantom.') as caught:
        phantoms(0, 4, 4, 4, **wrong)
    assert word in str(caught.value)
