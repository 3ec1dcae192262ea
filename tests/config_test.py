"""How rows of a table are named, and how stages follow their config."""

import pytest
from conftest import small_config

from covid_jax import UserError, config, methods


@pytest.mark.parametrize('arg,expected', [('', ('model4', 'small')), ('model1', ('model1', 'small')),
                                          ('size=full', ('model4', 'full')), ('model1,size=full', ('model1', 'full'))])
def test_rows(arg, expected):
    name, values = config.row(arg, ('model4', 'model1'), size=('small', 'full'))
    assert (name, values['size']) == expected


@pytest.mark.parametrize('arg', ['model9', 'model1,size=huge', 'model1,szie=full', 'model1,full', ','])
def test_rows_that_are_none(arg):
    with pytest.raises(UserError):
        config.row(arg, ('model4', 'model1'), size=('small', 'full'))


def test_a_stage_follows_the_config_but_for_its_overrides():
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'short': {'train': {'epochs': 1.0}, 'cmc': {'mixup': 0.0}}})
    c.train.lr, c.train.epochs, c.cmc.temperature = 0.5, 9.0, 0.7
    stage = c.short
    assert (stage.train.lr, stage.train.epochs, stage.cmc.mixup, stage.cmc.temperature) == (0.5, 1.0, 0.0, 0.7)
    assert c.stages == ('short',)


def test_a_stage_of_another_method_has_its_section_alone():
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'probe': {'method': 'supervised', 'supervised': {'frozen': True}},
                              'plain': {'method': 'supervised'}})
    assert c.probe.method == 'supervised' and c.probe.supervised.frozen is True and 'cmc' not in c.probe
    assert 'cmc' in c and c.method == 'cmc'
    assert methods.resolve(c.plain).supervised.frozen is False  # the method's own value


def test_overrides_of_what_is_not_there():
    c = small_config()
    with pytest.raises(KeyError, match='epoch'):
        config.stage(c, {'train': {'epoch': 3}})
    with pytest.raises(KeyError, match='rubik'):
        config.stage(c, {'rubik': {'mask': True}})  # a section of another method than the stage's
    for name in ('model', 'seed', 'cmc'):
        with pytest.raises(UserError, match=f"may not be called '{name}'"), c.unlocked():
            config.set_stages(c, {name: {}})
