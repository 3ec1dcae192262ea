"""How rows of a table are named, and how stages follow their config."""

import math

import pytest
from conftest import small_config

from covid_jax import UserError, config, methods, ranges
from covid_jax.data import negatives, order
from covid_jax.ranking import emd, select


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


def test_a_config_is_its_own():
    """Two of them share no section."""
    one = config.base()
    one.data.phantom.train = 1
    assert config.base().data.phantom.train != 1


def test_dotted_names():
    c = config.base()
    config.put(c, 'train.lr', 0.5)
    config.put(c, 'new.section.field', 3)
    assert config.get(c, 'train.lr') == 0.5 and c.new.section.field == 3


@pytest.mark.parametrize('name', [*ranges.LEAST, *ranges.CHOICES])
def test_the_range_of_a_field(name):
    """The edge is allowed, and what is beyond it is one line with the field's flag; what base() says is in the range."""
    c = config.base()
    ranges.check(c)
    edges = [ranges.LEAST[name]] if name in ranges.LEAST else ranges.CHOICES[name]
    for value in edges:
        config.put(c, name, type(config.get(c, name))(value))
        ranges.check(c)
    config.put(c, name, config.get(c, name) - 1 if name in ranges.LEAST else 'other')
    with pytest.raises(UserError, match=f'--config.{name}=.* must be'):
        ranges.check(c)


@pytest.mark.parametrize('name', ranges.MOST)
def test_the_most_that_a_field_may_be(name):
    c = config.base()
    config.put(c, name, type(config.get(c, name))(ranges.MOST[name]))
    ranges.check(c)
    config.put(c, name, config.get(c, name) + 1)
    with pytest.raises(UserError, match=f'--config.{name}=.* must be at most {ranges.MOST[name]}'):
        ranges.check(c)


@pytest.mark.parametrize('method', methods.METHODS)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_no_number_of_a_config_is_endless_or_none(method, value):
    """Of every section and of the method's own: a learning rate, an epoch, a share."""
    c = config.base()
    c.method = method
    c[method] = methods.METHODS[method].DEFAULTS
    ranges.check(c)
    numbers = [f'{section}.{name}' for section in ('data', 'model', 'train', 'eval', method) for name, of in c[section].items()
               if isinstance(of, float)]
    assert len(numbers) > 9
    for name in numbers:
        before = config.get(c, name)
        config.put(c, name, value)
        with pytest.raises(UserError, match=f'--config.{name}={value} must be a finite number'):
            ranges.check(c)
        config.put(c, name, before)


@pytest.mark.parametrize('value', [0.0, -1.0])
def test_a_spread_of_grey_values_is_above_zero(value):
    c = config.base()
    c.model.std = value
    with pytest.raises(UserError, match=f'--config.model.std={value} must be above 0'):
        ranges.check(c)


@pytest.mark.parametrize('level', [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level):
    c = config.base()
    c.eval.level = level
    with pytest.raises(UserError, match=f'--config.eval.level={level} must be above 0 and below 1'):
        ranges.check(c)


def test_folds_and_held_out_sites_both_say_what_is_tested():
    c = config.base()
    c.data.held_out_sites = ('oslo',)
    ranges.check(c)
    c.folds = 2
    with pytest.raises(UserError, match='^--config.folds=2 and --config.data.held_out_sites both say what is tested: set one of them$'):
        ranges.check(c)


def test_the_words_there_are():
    assert ranges.CHOICES['train.order'] == tuple(order.ORDERS)
    assert set(ranges.CHOICES['data.negatives.law']) == set(select.LAWS)
    assert set(ranges.CHOICES['data.negatives.by']) == set(negatives.TRACKS) and set(ranges.CHOICES['ranking.ground']) == set(emd.GROUNDS)


@pytest.mark.parametrize('name', ranges.CHOICES)
def test_each_choice_misspelt_is_one_line_that_lists_them(name):
    c = config.base()
    config.put(c, name, f'{ranges.CHOICES[name][0]}x')
    with pytest.raises(UserError) as error:
        ranges.check(c)
    assert '\n' not in str(error.value) and all(choice in str(error.value) for choice in ranges.CHOICES[name])


def test_partial_masses_are_refused_where_they_are_not_known():
    c = config.base()
    c.ranking.mass = 'partial'
    ranges.check(c)
    c.ranking.ground = 'value'
    with pytest.raises(UserError, match='--config.ranking.mass=partial is known of --config.ranking.ground=index alone'):
        ranges.check(c)
