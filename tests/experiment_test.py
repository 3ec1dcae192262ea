import json
import runpy

import numpy as np
import pytest
from conftest import small_config
from ml_collections import ConfigDict

from covid_jax import UserError, config, experiment


def test_folds_and_seeds_have_their_own_folders_and_one_table(tmp_path, capsys, rng):
    """Every patient is in test once over the folds."""
    for i in range(12):
        folder = tmp_path / 'data' / ('covid' if i % 2 else 'normal')
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f'{i}.npz', hu=rng.integers(-1000, 400, (8, 16, 16)).astype(np.int16))
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.folds, c.seeds = 2, 2
        c.train.epochs = 1.0
        c.eval.tta = 0
        c.data.source, c.data.root = 'folder', str(tmp_path / 'data')
    results = experiment.run(c, tmp_path / 'run')
    parts = [f'fold{f}/seed{s}' for f in (0, 1) for s in (0, 1)]
    assert list(results) == parts
    tested = []
    for part in parts:
        lines = (tmp_path / 'run' / part / 'predictions.csv').read_text().splitlines()[1:]
        tested.append({line.split(',')[0] for line in lines if ',test,' in line})
        assert json.loads((tmp_path / 'run' / part / 'metrics.json').read_text()) == results[part]
    assert tested[0] == tested[1] and tested[2] == tested[3]
    assert not tested[0] & tested[2] and len(tested[0] | tested[2]) == 12
    assert len(list((tmp_path / 'run' / 'store').glob('*/table.json'))) == 1  # prepared once
    assert '4 runs' in capsys.readouterr().out


def test_a_stage_starts_from_an_earlier_one(tmp_path, capsys):
    c = small_config()
    with c.unlocked():
        c.stages = ('first', 'second')
        c.first = ConfigDict({'method': {'name': 'supervised'}, 'train': {'epochs': 1.0}})
        c.second = ConfigDict({'init_from': 'first', 'train': {'epochs': 1.0}})
        c.eval.tta = 0
    results = experiment.run(c, tmp_path)
    assert list(results) == ['second']
    assert json.loads((tmp_path / 'first' / 'config.json').read_text())['method']['name'] == 'supervised'
    assert json.loads((tmp_path / 'second' / 'config.json').read_text())['init_from'] == str(tmp_path / 'first')
    out = capsys.readouterr().out
    assert f"started from {tmp_path / 'first'}; freshly initialised: ['log_sigma'], ['projector']" in out


def test_a_stage_without_overrides():
    c = small_config()
    with c.unlocked():
        c.stages = ('luna',)
    with pytest.raises(UserError, match='luna'):
        experiment.part_config(c, '.', 'luna', '', 0)


@pytest.mark.parametrize('arg,expected', [('', ('model4', 'small')), ('model1', ('model1', 'small')),
                                          ('size=full', ('model4', 'full')), ('model1,size=full', ('model1', 'full'))])
def test_rows(arg, expected):
    name, values = config.row(arg, ('model4', 'model1'), size=('small', 'full'))
    assert (name, values['size']) == expected


@pytest.mark.parametrize('arg', ['model9', 'model1,size=huge', 'model1,szie=full', 'model1,full', ','])
def test_rows_that_are_none(arg):
    with pytest.raises(UserError):
        config.row(arg, ('model4', 'model1'), size=('small', 'full'))


def test_every_row_of_every_config_builds_and_its_step_is_traced(root):
    """On abstract arrays, at the size that the config names."""
    import jax

    from covid_jax import methods
    from covid_jax.runtime import optim, state
    from covid_jax.runtime.mesh import make_mesh
    from covid_jax.train import resolve

    for path in sorted((root / 'configs').glob('*.py')):
        module = runpy.run_path(str(path))
        for row in module['ROWS']:
            c = resolve(module['get_config'](row), '/nowhere', 8)
            method = methods.make(c, make_mesh())
            tx = optim.make(c.train, 10)
            n = c.train.batch
            batch = {'image': jax.ShapeDtypeStruct((n, *c.prep.size, 1), 'uint8'),
                     **{k: jax.ShapeDtypeStruct((n,), t) for k, t in (('label', 'int32'), ('site', 'int32'),
                                                                      ('draw', 'uint32'), ('mask', 'bool'))}}
            key = jax.random.key(0)
            train = jax.eval_shape(lambda k, b, m=method, t=tx: state.create(*m.init(k, b), t), key, batch)
            after, scalars = jax.eval_shape(state.train_step(method, tx), train, batch, key)
            assert jax.tree.structure(after) == jax.tree.structure(train) and scalars['loss'].shape == ()
            answer = jax.eval_shape(method.predict, train.params, train.state, batch, key)
            assert answer['logits'].shape == (n, 2)


def test_the_batch_of_a_run_is_kept_on_other_devices(tmp_path):
    from covid_jax.train import resolve

    c = small_config()
    with c.unlocked():
        c.train.batch = 0
    first = resolve(c, tmp_path, 1)
    assert first.train.batch == 8 and c.train.batch == 0
    config.keep(first, tmp_path, 'digest')
    assert resolve(c, tmp_path, 2).train.batch == 8
    with pytest.raises(UserError, match='multiple of 3'):
        resolve(c, tmp_path, 3)
