"""The scans of a config are prepared once, where its trainings find them."""

import pytest
from conftest import single_image_config

from covid_jax import UserError, cli, config, prepare, stages
from covid_jax.data import pipeline, store


def small(**fields):
    c = single_image_config(epochs=1.0)
    with c.unlocked():
        c.data.phantom.update(train=8, val=4, test=4)
        c.update(fields)
    return c


def nothing(line):
    pass


def test_a_training_finds_what_was_prepared(tmp_path, monkeypatch):
    """In folds, whose scans are the same; nothing but the store is left."""
    c = small(folds=2)
    (made,) = prepare.prepare(c, tmp_path / 'run', nothing)
    assert made == (tmp_path / 'run/store', 16, {}) and [path.name for path in (tmp_path / 'run').iterdir()] == ['store']
    monkeypatch.setattr(store, '_make', lambda *_: pytest.fail('prepared again'))
    for part in stages.parts(c, tmp_path / 'run'):
        dataset = pipeline.prepare(pipeline.survey(part.config, part.config.data.store, True, nothing), part.config.data.store, 1, nothing)
        assert len(dataset.exams) == 16
    assert prepare.prepare(c, tmp_path / 'run', nothing) == [made]


def test_stages_of_other_data_are_all_prepared(tmp_path):
    c = small()
    with c.unlocked():
        config.set_stages(c, {'one': {'data': {'phantom': {'seed': 3}}}, 'two': {}, 'again': {'seed': 1},
                              'matrix': {'kind': 'cross', 'cross': {'runs': 'one,two'}}})
    assert [made.scans for made in prepare.prepare(c, tmp_path, nothing)] == [16, 16]
    assert len([path for path in (tmp_path / 'store').iterdir() if path.is_dir()]) == 2


def test_what_could_not_be_prepared_is_told(tmp_path, monkeypatch, capsys):
    made = [prepare.Prepared(tmp_path, 3, {'a': 'cut off'})]
    monkeypatch.setattr(prepare, 'prepare', lambda *_: made)
    cli.run(['prepare', '--config=configs/supervised.py'])
    assert capsys.readouterr().out == f'3 scans are prepared: {tmp_path}\n1 could not be (a: cut off)\n'


def test_what_cannot_be_prepared_is_one_line(tmp_path):
    with pytest.raises(UserError, match='trains nothing'):
        prepare.prepare(small(ensemble={'runs': 'a,b'}), tmp_path, nothing)
    with pytest.raises(UserError, match='no field --config.data.rooot: did you mean'):
        cli.run(['prepare', '--config=configs/supervised.py', '--config.data.rooot=x'])
    c = small()
    c.data.update(source='folder', root=str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='there is nothing at'):
        prepare.prepare(c, tmp_path / 'run', nothing)
    assert not (tmp_path / 'run').exists()
