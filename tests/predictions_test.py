import numpy as np
import pytest

from covid_jax import UserError, predictions
from covid_jax.predictions import Predictions
from covid_jax.sources.exams import Exam

NAMES = ('noncovid', 'covid')


def table():
    rows = [('a1', 'a', 'oslo', 'val', 'covid', 0.25), ('a2', 'a', 'rome', 'val', '', 0.75),
            ('b1', 'b', 'rome', 'test', 'noncovid', 0.5), ('c1', 'c', 'oslo', 'test', 'covid', 0.125),
            ('c2', 'c', 'oslo', 'test', 'noncovid', 0.25)]
    p = np.array([row[5] for row in rows], np.float32)
    exams = [Exam(name, patient, site, label, split, '') for name, patient, site, split, label, _ in rows]
    label = np.array([{'': -1, 'noncovid': 0, 'covid': 1}[e.label] for e in exams], np.int32)
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    return Predictions(NAMES, exams, label, np.stack([1 - p, p], 1), features, {'sites': np.array([1, 2, 1, 1, 1])})


def test_rows_of_a_split_and_a_site_keep_their_columns_together():
    p = table()
    some = p.of('test', 'oslo')
    assert [e.id for e in some.exams] == ['c1', 'c2'] and some.label.tolist() == [1, 0]
    assert some.probability[:, 1].tolist() == [0.125, 0.25] and some.features.tolist() == [[6, 7], [8, 9]]
    assert some.columns['sites'].tolist() == [1, 1]
    assert p.splits == ('val', 'test') and p.sites == ('oslo', 'rome')
    assert [e.id for e in p.labelled().exams] == ['a1', 'b1', 'c1', 'c2']
    assert p.of('train').exams == [] and p.of('train').probability.shape == (0, 2)


def test_a_patient_is_the_mean_of_all_columns():
    """a: 0.25 and 0.75, one of the two labelled; c has both labels."""
    patients, torn = table().by_patient()
    assert torn == ['c'] and [(e.id, e.site, e.split) for e in patients.exams] == [('a', 'oslo', 'val'), ('b', 'rome', 'test')]
    assert patients.label.tolist() == [1, 0] and patients.probability[:, 1].tolist() == [0.5, 0.5]
    assert patients.features.tolist() == [[1, 2], [4, 5]] and patients.columns['sites'].tolist() == [1.5, 1]


def test_a_patient_of_two_splits_is_two():
    p = table()
    p = p._replace(exams=[e._replace(patient='x') for e in p.exams], label=np.full(5, 1, np.int32))
    patients, torn = p.by_patient()
    assert [(e.id, e.split) for e in patients.exams] == [('x', 'val'), ('x', 'test')] and not torn


def test_what_is_written_is_read(tmp_path):
    p = table()
    predictions.write(tmp_path / 'predictions.csv', p)
    again = predictions.read(tmp_path / 'predictions.csv', NAMES)
    assert again.exams == p.exams and again.label.tolist() == p.label.tolist() and again.features is None
    np.testing.assert_allclose(again.probability, p.probability, atol=1e-6)
    assert again.columns['sites'].tolist() == p.columns['sites'].tolist()
    assert (tmp_path / 'predictions.csv').read_text().splitlines()[0] == (
        'id,patient,site,split,label,p_noncovid,p_covid,sites')
    with pytest.raises(UserError, match='p_pneumonia'):
        predictions.read(tmp_path / 'predictions.csv', (*NAMES, 'pneumonia'))


def test_all_exams_of_a_patient_that_was_learnt_from_are_marked():
    """a2 is of the patient of a1; of what was not answered nothing is said."""
    marked, note = predictions.marked(table(), {'x1': 'runs/other', 'a1': 'runs/before'})
    assert marked.columns['seen'].tolist() == [1, 1, 0, 0, 0] and marked.columns['sites'].tolist() == [1, 2, 1, 1, 1]
    assert note == '2 exams are of patients that runs/before learnt from'
    unmarked, note = predictions.marked(table(), {'x1': 'runs/other'})
    assert 'seen' not in unmarked.columns and note == ''


def test_names_that_a_spreadsheet_would_run_are_read_as_they_were(tmp_path):
    names = ('-', '=covid')
    p = table()
    exams = [e._replace(id=f'=1+{i}', patient='@a', site='+s', label=names[at] if at >= 0 else '')
             for i, (e, at) in enumerate(zip(p.exams, p.label, strict=True))]
    predictions.write(tmp_path / 'predictions.csv', p._replace(names=names, exams=exams))
    assert predictions.read(tmp_path / 'predictions.csv', names).exams == exams


def test_features_are_kept_with_their_exams(tmp_path):
    predictions.write_features(tmp_path / 'features.npz', table())
    kept = np.load(tmp_path / 'features.npz')
    assert kept['id'].tolist() == ['a1', 'a2', 'b1', 'c1', 'c2'] and kept['split'].tolist() == ['val'] * 2 + ['test'] * 3
    np.testing.assert_array_equal(kept['features'], table().features)
