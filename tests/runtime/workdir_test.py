import json
import os

import pytest
from conftest import small_config

from covid_jax import UserError, start
from covid_jax.runtime import workdir


def kept(folder, config, **beside):
    mine = workdir.fields(config)
    workdir.keep(mine, folder, **{'dataset': 'd', 'sites': [], 'versions': {}, **beside})
    return mine


def test_the_same_fields_go_on_and_others_do_not(tmp_path):
    c = small_config()
    mine = kept(tmp_path, c)
    workdir.check(mine, tmp_path, {}, 'd')
    workdir.check(mine | {'eval.tta': 9, 'data.root': 'elsewhere'}, tmp_path, {}, 'd')
    with pytest.raises(UserError, match='train.lr: 0.0006 there, 0.5 now'):
        workdir.check(mine | {'train.lr': 0.5}, tmp_path, {})
    with pytest.raises(UserError, match='other scans'):
        workdir.check(mine, tmp_path, {}, 'e')


def test_a_field_that_came_later_means_its_default(tmp_path):
    """A run of an older version goes on while the new field says what was done before there was one."""
    mine = kept(tmp_path, small_config())
    path = tmp_path / 'config.json'
    old = json.loads(path.read_text())
    del old['train']['patience']
    del old['cmc']['mixup']
    path.write_text(json.dumps(old))
    workdir.check(mine, tmp_path, start.defaults('cmc'))
    for name, value in (('train.patience', 3), ('cmc.mixup', 0.1)):
        with pytest.raises(UserError, match=name):
            workdir.check(mine | {name: value}, tmp_path, start.defaults('cmc'))


def test_a_run_whose_intervals_were_drawn_goes_on(tmp_path):
    """An older version had eval.resamples in place of eval.level. Neither changes anything of the training."""
    mine = kept(tmp_path, small_config())
    path = tmp_path / 'config.json'
    old = json.loads(path.read_text())
    del old['eval']['level']
    old['eval']['resamples'] = 1000
    path.write_text(json.dumps(old))
    workdir.check(mine | {'eval.level': 0.9}, tmp_path, start.defaults('cmc'), 'd')


def test_a_folder_can_be_moved(tmp_path, monkeypatch):
    """Paths are kept relative to it: of an earlier stage beside it, of several runs, of none."""
    monkeypatch.chdir(tmp_path)
    c = small_config()
    with c.unlocked():
        c.init_from, c.ensemble.runs = 'runs/x/first', f'runs/a,{tmp_path}/runs/b'
    mine = kept('runs/x/second', c)
    tree = json.loads((tmp_path / 'runs' / 'x' / 'second' / 'config.json').read_text())
    assert tree['init_from'] == '../first' and tree['ensemble']['runs'] == '../../a,../../b'
    assert tree['model']['pretrained'] == ''
    os.rename('runs', 'moved')
    assert workdir.read('moved/x/second')['init_from'] == 'moved/x/first'
    moved = mine | {'init_from': 'moved/x/first', 'ensemble.runs': 'moved/a,moved/b'}
    workdir.check(moved, 'moved/x/second', {})
    with pytest.raises(UserError, match='init_from'):
        workdir.check(moved | {'init_from': 'moved/x/third'}, 'moved/x/second', {})


@pytest.mark.parametrize('text', ['{', '[]', '"x"'])
def test_a_damaged_config(tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError, match='config.json is damaged'):
        workdir.read(tmp_path)
