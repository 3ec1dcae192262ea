"""scripts/best_covid_ct.py: its recipes are commands that there are, and it ranks by what val says."""

import ast
import json
import runpy

import jax
import jax.numpy as jnp
import pytest

from covid_jax import UserError, config
from covid_jax.flags import check_names
from covid_jax.models import NETWORKS


@pytest.fixture(scope='module')
def script(root):
    return runpy.run_path(str(root / 'scripts' / 'best_covid_ct.py'))


def test_every_recipe_is_a_row_and_fields_that_there_are(script, root, tmp_path):
    """Three networks, three sizes, and no two alike."""
    recipes = script['RECIPES']
    assert len(recipes) >= 12 and len(set(recipes.values())) == len(recipes)
    assert len({r.network for r in recipes.values()}) >= 3 and len({r.plane for r in recipes.values()}) >= 3
    get_config = runpy.run_path(str(root / 'configs' / 'self_trans.py'))['get_config']
    roots = {'covid_ct': 'A', 'sars': 'B', 'luna': 'C'}
    for name, recipe in recipes.items():
        line = script['command'](recipe, 2, tmp_path / name, roots)
        row = line[3].removeprefix('--config=configs/self_trans.py:')
        fields = [flag.removeprefix('--config.').partition('=')[0] for flag in line[4:] if flag.startswith('--config.')]
        check_names(get_config(row), fields)
        _check_size(recipe)
        assert line[-2:] == [f'--config.data.store={tmp_path / "store"}', f'--workdir={tmp_path / name}']
        assert not any('{' in flag for flag in line)


def test_the_best_recipe_is_a_row(script, root, tmp_path):
    """Of the same fields, but for where the data are and how many seeds."""
    get_config = runpy.run_path(str(root / 'configs' / 'self_trans.py'))['get_config']
    line = script['command'](script['RECIPES']['small_128'], 2, tmp_path / 'best', {'covid_ct': '', 'sars': '', 'luna': ''})
    tried = get_config(line[3].removeprefix('--config=configs/self_trans.py:'))
    best = get_config('best')
    with tried.unlocked():
        for flag in line[4:-2]:
            name, _, value = flag.removeprefix('--config.').partition('=')
            as_before = config.get(tried, name)
            config.put(tried, name, value if isinstance(as_before, str) else ast.literal_eval(value))
        tried.seeds = best.seeds
        tried.row = best.row
    assert tried.to_json() == best.to_json()


def _check_size(recipe):
    """UserError where the recipe's network does not take images of its size."""
    image = jax.ShapeDtypeStruct((2, 1, recipe.plane, recipe.plane, 1), jnp.float32)
    jax.eval_shape(NETWORKS[recipe.network](classes=2).init, jax.eval_shape(jax.random.key, 0), image)


def test_recipes_are_ranked_by_the_mean_auc_on_val_of_both_seeds(script, tmp_path):
    scores = {'small_64': (0.7, 0.8), 'small_96_moco': (0.9, 0.5), 'small_96': (0.72, 0.82), 'small_128': (0.99,)}
    for name, of_seeds in scores.items():
        place = script['answered'](tmp_path / name, script['RECIPES'][name].row)
        for seed, auc in enumerate(of_seeds):
            folder = place / 'fold0' / f'seed{seed}'
            folder.mkdir(parents=True)
            (folder / 'metrics.json').write_text(json.dumps({'val': {'all': {'auc': {'value': auc}}}, 'test': {'all': {'auc': {'value': 1 - auc}}}}))
    assert [name for name, _ in script['ranked'](tmp_path)] == ['small_96', 'small_64', 'small_96_moco']
    with pytest.raises(UserError, match='11 recipes have not been tried'):
        script['compared'](tmp_path, {})


def test_a_folder_with_the_official_test_split_is_refused(script, monkeypatch):
    from covid_jax.sources.exams import Exam

    for split in ('val', 'test'):
        exams = [Exam('a', 'a', 'COVID-CT', 'COVID', 'train', ''), Exam('b', 'b', 'COVID-CT', 'COVID', split, '')]
        monkeypatch.setitem(script['check'].__globals__, 'covid_ct', lambda root, say, exams=exams: exams)
        if split == 'val':
            script['check']('COVID-CT')
        else:
            with pytest.raises(UserError, match='names the official test split'):
                script['check']('COVID-CT')
