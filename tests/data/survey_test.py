"""What is known of a data set before it is prepared: folds and splits of real and made sources, what is learnt from, what is said."""

from collections import Counter

import numpy as np
import pytest
from scan_files import real

from covid_jax import UserError, flags
from covid_jax.config import base
from covid_jax.data import pipeline


def load(c, root, labelled=True, say=print):
    return pipeline.prepare(pipeline.survey(c, root, labelled, say), root, 1, say)


def folder(root, splits=('',), count=20):
    """<split>/<class>/<n>.npy, every scan another; two of four are covid."""
    for i in range(count):
        place = root / splits[i % len(splits)] / ('covid' if i % 4 < 2 else 'normal')
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f'{i}.npy', np.random.default_rng([i, *root.name.encode()]).integers(0, 255, (2, 4, 4), np.uint8))
    return root


def of(source, *roots, **data):
    c = base()
    c.data.update(source=source, root=','.join(map(str, roots)), **data)
    c.prep.size = (2, 4, 4)
    return c


def splits_of_folds(c, root, folds=3):
    """{(patient, site): the splits of its exams, fold after fold}, and what was said."""
    found, said = {}, []
    c.folds = folds
    for c.fold in range(folds):
        splits = {}
        for e in pipeline.survey(c, root, say=said.append).exams:
            splits.setdefault((e.patient, e.site), set()).add(e.split)
        for patient, (split,) in splits.items():
            found.setdefault(patient, []).append(split)
    return found, said


def assert_each_is_tested_once(found, folds=3):
    assert all(splits.count('test') == 1 for splits in found.values())
    for site in {site for _, site in found}:
        for fold in range(folds):
            counts = Counter(splits[fold] for (_, where), splits in found.items() if where == site)
            whole = counts.total()
            assert abs(counts['test'] - whole / folds) < 1 and counts['val'] and counts['train'] > counts['val']


def test_folds_of_the_phantom_ignore_its_splits_and_say_so(tmp_path):
    c = base()
    c.data.phantom.update(train=12, val=4, test=8)
    found, said = splits_of_folds(c, tmp_path)
    assert_each_is_tested_once(found)
    assert said == ['phantom: own splits are ignored, all patients are drawn (--config.data.split=source keeps them)'] * 3
    assert not list(tmp_path.glob('*/table.json'))  # nothing is prepared


def test_folds_of_covid_ct_deal_the_groups_of_its_official_lists(tmp_path):
    c = of('covid_ct', real('COVID-CT'))
    found, said = splits_of_folds(c, tmp_path)
    assert len(found) == 40 + 39 + 170
    assert_each_is_tested_once(found)
    c.data.split = 'source'
    with pytest.raises(UserError, match='folds=3 .*not the 0 of covid_ct: .*--config.data.split=drawn for the 250'):
        pipeline.survey(c, tmp_path)
    c.folds, c.data.split = 1, 'auto'
    assert Counter(e.split for e in pipeline.survey(c, tmp_path).exams) == {'train': 425, 'val': 118}
    c.data.split = 'drawn'
    drawn = {(e.patient, e.split) for e in pipeline.survey(c, tmp_path, say=said.append).exams}
    counts = Counter(split for _, split in drawn)
    assert counts == {'train': 249 - 2 * (8 + 42), 'val': 8 + 42, 'test': 8 + 42}  # a fifth of 40 and of 209
    assert 'covid_ct: own splits are ignored' in said[-1]


def test_unlabelled_slices_are_learnt_from_where_no_label_is_needed(tmp_path):
    c = of('luna16', real('LUNA16-slices'))
    found = pipeline.survey(c, tmp_path, labelled=False)
    assert Counter(e.split for e in found.exams) == {'train': 200} and len(set(found.hashes)) == 200
    with pytest.raises(UserError, match='of 200 exams 200 have no label; the method learns from labels'):
        pipeline.survey(c, tmp_path)


def test_a_split_of_one_site_alone_is_said_to_be(tmp_path):
    c = of('folder,folder', folder(tmp_path / 'oslo', ('train', 'val'), 8), folder(tmp_path / 'rome', ('test',), 4))
    said = []
    load(c, tmp_path / 'store', say=said.append)
    assert said == ['train: of oslo alone: 2 noncovid, 2 covid', 'val: of oslo alone: 2 noncovid, 2 covid',
                    'test: of rome alone: 2 noncovid, 2 covid']
    c = of('folder', tmp_path / 'oslo')
    c.data.use = 'covid'
    load(c, tmp_path / 'store', labelled=False, say=said.append)
    assert said[3:] == ['train: 2 covid', 'val: 2 noncovid, 2 covid', 'not used: 2 noncovid']


def test_a_list_of_ids_says_what_is_learnt_from(tmp_path):
    c = of('folder', folder(tmp_path / 'oslo', ('train', 'val'), 12))
    c.data.include = str(tmp_path / 'chosen.txt')
    (tmp_path / 'chosen.txt').write_text('train/covid/0.npy  # by its id\nnormal/2.npy\n3.npy\nnormal/99.npy\n')
    said = []
    found = pipeline.survey(c, tmp_path / 'store', say=said.append)
    assert Counter(e.split for e in found.exams) == {'train': 2, 'val': 6, '': 4}
    assert {e.id for e in found.exams if e.split == 'train'} == {'train/covid/0.npy', 'train/normal/2.npy'}
    assert said == [f'{c.data.include}: of 6 exams in train 2 are named; 1 of 4 ids are not in the data (normal/99.npy), '
                    '1 are in val or test and stay there']
    (tmp_path / 'chosen.txt').write_text('3.npy\n')
    with pytest.raises(UserError, match='of 12 exams 6 are not in .*chosen.txt, 6 are in val or test'):
        pipeline.survey(c, tmp_path / 'store', say=said.append)
    (tmp_path / 'chosen.txt').write_text('99.npy\n')
    with pytest.raises(UserError, match="none of its 1 ids is in the data: '99.npy' there"):
        pipeline.survey(c, tmp_path / 'store', say=said.append)


def test_what_is_learnt_from_is_told_by_the_digest_and_hashes_go_with_their_exams(tmp_path):
    c = of('folder', folder(tmp_path / 'oslo', ('train', 'val'), 12))
    (tmp_path / 'oslo/train/covid/0.npy').write_bytes(b'broken')
    first = pipeline.survey(c, tmp_path / 'store')
    c.data.use = 'covid'
    assert pipeline.survey(c, tmp_path / 'store').digest != first.digest
    d = pipeline.prepare(first, tmp_path / 'store', 1)
    assert list(d.broken) == ['train/covid/0.npy'] and len(d.exams) == len(d.hashes) == 11
    hash_of = dict(zip((e.id for e in first.exams), first.hashes, strict=True))
    assert d.hashes == [hash_of[e.id] for e in d.exams] and d.digest == first.digest and d.sites == ('default',)


@pytest.mark.parametrize('field, value, words', [
    ('classes', ('covid', 'normal'), 'covid must be the second'), ('source', 'foldr', "did you mean 'folder'"),
    ('use', 'covid,flu', "no class is called 'flu'"), ('split', 'mine', 'data.split=mine must be auto, source or drawn'),
])
def test_the_cheapest_checks_come_before_anything_is_listed(tmp_path, monkeypatch, field, value, words):
    c = of('folder', tmp_path)
    c.data[field] = value
    monkeypatch.setattr(pipeline.sources, '_one_source', None)
    with pytest.raises(UserError, match=words):
        pipeline.survey(c, tmp_path)
    with pytest.raises(UserError, match=words):
        pipeline.check(c)


def test_data_that_are_all_test_keep_no_split_of_their_source(tmp_path):
    """A group that the lists of COVID-CT tear is one patient again, and nothing is learnt from."""
    found = pipeline.survey_test(of('covid_ct', real('COVID-CT')), tmp_path, say=lambda line: None)
    assert Counter(e.split for e in found.exams) == {'test': 543}
    assert len({e.patient for e in found.exams}) == 40 + 39 + 170


def test_near_duplicates_of_test_data_are_one_patient_where_they_are_asked_for(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
    (tmp_path / 'covid').mkdir()
    for name, scan in (('a', image), ('b', image // 2), ('c', image[:, ::-1])):
        np.save(tmp_path / 'covid' / f'{name}.npy', scan)
    groups = {group: len({e.patient for e in pipeline.survey_test(of('folder', tmp_path, group=group), tmp_path / 'store').exams})
              for group in ('source', 'clusters')}
    assert groups == {'source': 3, 'clusters': 2}


@pytest.mark.parametrize('folds', [1, 3])
def test_exams_of_some_sites_are_in_the_splits_that_they_have_among_all(tmp_path, folds):
    """Of two sources, and of two sites of one manifest."""
    mixed = tmp_path / 'scans.csv'
    folder(tmp_path / 'oslo')
    rows = [f'oslo/{label}/{i}.npy,{label},{"oslo" if i < 8 else "bonn"}' for i in range(20) for label in
            ['covid' if i % 4 < 2 else 'normal']]
    mixed.write_text('\n'.join(['path,label,site', *rows]))
    for c in (of('folder,folder', tmp_path / 'oslo', folder(tmp_path / 'rome')), of('manifest', mixed)):
        c.folds = folds
        joint = {e.id: e for e in pipeline.survey(c, tmp_path).exams}
        c.data.sites = ('oslo',)
        alone = pipeline.survey(c, tmp_path).exams
        assert alone == [e for e in joint.values() if e.site == 'oslo'] and 0 < len(alone) < len(joint)
        assert {e.site for e in pipeline.survey_test(c, tmp_path).exams} == {'oslo'}
        c.data.sites = ('oslo', 'paris')
        with pytest.raises(UserError, match="data.sites names sites that there are not: paris; there are (bonn, oslo|oslo, rome)"):
            pipeline.survey(c, tmp_path)
        c.data.sites = ('oslo',)
        for held_out, line in ((('oslo',), 'leave one to learn from'), (('rome',), 'sites that there are not: rome; there are oslo')):
            c.data.held_out_sites = held_out
            c.folds = 1
            with pytest.raises(UserError, match=line):
                pipeline.survey(c, tmp_path)


@pytest.mark.parametrize('patient, line', [('{i}', ['10 patients are at several sites']), ('{site}-{i}', [])])
def test_patients_of_one_name_at_two_hospitals_are_said(tmp_path, patient, line):
    folder(tmp_path)
    rows = ['path,label,patient,site']
    for i in range(20):
        label = 'covid' if i % 4 < 2 else 'normal'
        rows.append(f'{label}/{i}.npy,{label},{patient.format(i=i % 10, site=i // 10)},{("oslo", "rome")[i // 10]}')
    (tmp_path / 'scans.csv').write_text('\n'.join(rows))
    said = []
    pipeline.survey(of('manifest', tmp_path / 'scans.csv'), tmp_path, say=said.append)
    assert [text[:32] for text in said if 'several sites' in text] == line


@pytest.mark.parametrize('form, flag, held_out', [('{:03d}', "('001',)", '001'), ('{}', '(1,)', '1'), ('{}', '1', '1'), ('{:03d}', '(1,)', '')])
def test_patients_with_numbers_as_ids_are_held_out_by_a_flag(tmp_path, root, form, flag, held_out):
    """A number is never taken for one with zeros in front of it: these may be two patients."""
    folder(tmp_path, count=10)
    rows = [f'{"covid" if i % 4 < 2 else "normal"}/{i}.npy,{"covid" if i % 4 < 2 else "normal"},{form.format(i + 1)}' for i in range(10)]
    (tmp_path / 'm.csv').write_text('\n'.join(['path,label,patient', *rows]))
    c = flags.parse([f'--config={root}/configs/supervised.py', '--config.data.source=manifest', f'--config.data.root={tmp_path}/m.csv',
                     f'--config.data.held_out={flag}']).config
    if held_out:
        assert {e.patient for e in pipeline.survey(c, tmp_path / 'store').exams if e.split == 'test'} == {held_out}
    else:
        with pytest.raises(UserError, match='patients that the data does not have: 1; it has 001, 002'):
            pipeline.survey(c, tmp_path / 'store')


def test_a_class_of_one_patient_is_no_cross_validation(tmp_path):
    rows = ['path,label,patient']
    for i in range(6):
        np.savez(tmp_path / f'{i}.npz', hu=np.random.default_rng(i).integers(-1000, 400, (2, 8, 8)).astype(np.int16))
        rows.append(f'{i}.npz,{"covid" if i < 2 else "normal"},p{max(i, 1)}')
    (tmp_path / 'm.csv').write_text('\n'.join(rows))
    c = base()
    c.data.update(source='manifest', root=str(tmp_path / 'm.csv'))
    c.folds = 3
    with pytest.raises(UserError, match='class covid has one patient for 3 folds'):
        pipeline.survey(c, tmp_path / 'store', say=list)
    said = []
    pipeline.survey(c, tmp_path / 'store', False, said.append)
    assert any('class covid has 1 patient for 3 folds: 2 folds test on none of it' in line for line in said)
