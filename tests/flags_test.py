"""What the flags of a command become, and that each mistake is one line that helps."""

import pytest
from conftest import small_config
from ml_collections import ConfigDict

from covid_jax import UserError, config, experiment, flags, ranges
from covid_jax.methods import METHODS


@pytest.fixture
def parse(root, monkeypatch):
    """flags.parse in the project's folder. The config's text, which absl makes of each default, takes longer than all else."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(ConfigDict, '__str__', object.__repr__)
    return lambda line: flags.parse(line.split())


def test_fields_are_set_in_both_spellings(parse):
    given = parse('--workdir here --config.train.lr=0.5 --config configs/cmc.py:model1,size=small --config.prep.size (1,2,3) '
                  '--noconfig.cmc.contrastive --distributed')
    assert given.config.train.lr == 0.5 and given.config.prep.size == (1, 2, 3) and given.config.cmc.contrastive is False
    assert given.config.model.name == 'ResNet14Small' and given.config.is_locked
    assert str(given.workdir) == 'here' and given.distributed
    assert (given.coordinator, given.num_processes, given.process_id) == (None, None, None)


def test_what_was_set_by_one_command_is_not_by_the_next(parse):
    """No flag outlives its parsing."""
    assert parse('--config=configs/cmc.py --config.train.lr=0.5 --workdir=here').config.train.lr == 0.5
    assert parse('--config=configs/cmc.py').config.train.lr != 0.5


@pytest.mark.parametrize('value, names', [('(1,)', ('1',)), ("('001',)", ('001',)), ('1', ('1',)), ("('a',2.5)", ('a', '2.5')), ('p1', ('p1',)),
                                          ('()', ()), ('(001,)', ('001',)), ('1.10,2.50', ('1.10', '2.50')), ('p1,p2', ('p1', 'p2')),
                                          ('[1e3,"a,b"]', ('1e3', 'a,b')), ("it's,", ("it's",)), ('12345678901234567890.5', ('12345678901234567890.5',))])
@pytest.mark.parametrize('field', ['data.held_out', 'data.sites', 'data.held_out_sites'])
def test_names_that_are_numbers_are_text(parse, field, value, names):
    """With every zero, though a shell takes the quotes; commas part them, with brackets or without."""
    assert config.get(parse(f'{ROW} --config.{field}={value}').config, field) == names
    assert config.get(parse(f'{ROW} --config.{field} {value}').config, field) == names


@pytest.mark.parametrize('value', ['', '(,)', 'a,,b'])
def test_a_name_that_is_none_is_one_line(parse, value):
    with pytest.raises(UserError, match='must be names'):
        ranges.check(parse(f'{ROW} --config.data.held_out={value}').config)


def test_names_that_are_numbers_are_text_in_a_stage_too(parse):
    assert parse('--config=configs/cmc.py:model5,size=small --config.model1.data.held_out (1,)').config.model1.data.held_out == ('1',)


@pytest.mark.parametrize('field, value, words', [
    ('data.held_out', ('a', None), 'must be names'), ('data.sites', (True,), 'must be names'), ('data.classes', (('a',), 'b'), 'must be names'),
    ('data.held_out_sites', ('',), 'must be names'), ('data.held_out', (1,), 'must be names'),
    ('prep.size', (1, 2, 'a'), 'must be numbers'), ('prep.window', ('',), 'must be numbers'), ('train.lr_steps', ('a',), 'must be numbers'),
    ('prep.spacing', (1, 2, float('nan')), 'must be numbers'), ('prep.margin', (True, 1, 1), 'must be numbers')])
def test_what_a_tuple_cannot_hold_is_one_line(field, value, words):
    c = config.base()
    config.put(c, field, value)
    with pytest.raises(UserError, match=f'--config.{field}=.*{words}') as e:
        ranges.check(c)
    assert '\n' not in str(e.value)


def test_a_tuple_of_the_method_is_of_numbers(parse):
    c = parse("--config=configs/cross_site.py --config.cross_site.embedding=('wide',)").config
    with pytest.raises(UserError, match='cross_site.embedding=.*must be numbers'):
        ranges.check(c)


@pytest.mark.parametrize('given, folder', [('configs/cmc.py', 'runs/cmc'), ('a/b/cmc.py:model1', 'runs/cmc-model1'),
                                           ('configs/cmc.py:model1,size=small', 'runs/cmc-model1-size-small')])
def test_where_a_run_lives_by_default(given, folder):
    assert str(flags.default_workdir(given)) == folder


def test_a_config_file_without_rows(parse, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('from covid_jax.config import base\n\n\ndef get_config():\n    return base()\n')
    assert parse(f'--config={path} --config.seed=3').config.seed == 3


ROW = '--config=configs/cmc.py'


@pytest.mark.parametrize('line, message', [
    ('', 'which config? for example --config=configs/cmc.py'),
    ('--config.train.batch 4', 'which config? for example --config=configs/cmc.py'),
    ('--frob=1', "'--frob=1' is not a flag, and which config? for example --config=configs/cmc.py"),
    ('--config=configs/cmcc.py', 'there is no config file configs/cmcc.py'),
    ('--config=configs', 'there is no config file configs'),
    ('--config=README.md', 'README.md is no config file: it has no get_config'),
    ('--config=covid_jax/text.py', 'covid_jax/text.py is no config file: it has no get_config'),
    ('--config=configs/cmc.py:modle4', "no row is called 'modle4'"),
    ('--config=configs/cmc.py:size=huge', 'size=full, size=small'),
    (f'{ROW} --config=configs/cmc.py:model1', 'more than once, as configs/cmc.py and configs/cmc.py:model1'),
    (f'{ROW} --config.row=cmc:model5', 'name a row as --config=FILE:ROW'),
    (f'{ROW} --config.train.lrr=1', 'no field --config.train.lrr: did you mean --config.train.lr?'),
    (f'{ROW} --config.epochs=1', 'did you mean --config.train.epochs?'),
    (f'{ROW} --config.method.depth=6', 'did you mean --config.views.depth?'),
    (f'{ROW} --config.optim.lr_step=6', 'did you mean --config.train.lr_steps?'),
    (f'{ROW} --config.xyzzy=1', 'no field --config.xyzzy'),
    (f'{ROW} --config.train.lr=fast', 'flag --config.train.lr=fast'),
    (f'{ROW} --config.train.lr', 'Missing value for flag --config.train.lr'),
    (f'{ROW} --config.train=3', '--config.train=3'),
    (f"{ROW} --config.data.held_out=('a',) --config.data.held_out=('b',)", '--config.data.held_out is given more than once'),
    (f'{ROW} --config.prep.size (1,2,3) --config.prep.size=(1,2,4)', '--config.prep.size is given more than once'),
    (f'{ROW} --config.prep.size=(001,)', 'Error while parsing string: (001,) as tuple'),
    (f'{ROW} --num_processes=two', '--num_processes=two'),
    (f'{ROW} --wrokdir=x', "'wrokdir'. Did you mean: workdir"),
    (f'workdir=x {ROW}', "'workdir=x' is not a flag: fields are set as --config.FIELD=VALUE"),
    ('--config=configs/cmc.py:model5,size=small --config.views.depth=6',
     'each stage has its own views.depth: set --config.model1.views.depth (there are model1, model3, model4)'),
])
def test_a_mistake_is_one_helpful_line(parse, line, message):
    with pytest.raises(UserError) as e:
        parse(line)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_a_config_without_rows_and_one_with_a_mistake_of_its_own(parse, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('from covid_jax.config import base\n\n\ndef get_config():\n    return base()\n')
    with pytest.raises(UserError, match='mine.py has no rows'):
        parse(f'--config={path}:model4')
    path.write_text("LR = float('1e-3x')\n")
    with pytest.raises(ValueError, match='could not convert'):  # python's own words, with the line
        parse(f'--config={path}')


def test_a_field_that_every_stage_has_is_set_in_one():
    """One that a single stage has of its own is the config's for the others; an ensemble's fields count for none."""
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'one': {'views': {'depth': 3}, 'train': {'epochs': 1.0}}, 'two': {'views': {'depth': 4}},
                              'mean': {'kind': 'ensemble', 'ensemble': {'runs': 'one,two'}}})
    flags.check_names(c, ['train.epochs', 'one.views.depth', 'cmc.mixup'])
    with pytest.raises(UserError, match=r'each stage has its own views.depth: set --config.one.views.depth \(there are one, two\)'):
        flags.check_names(c, ['views.depth'])


@pytest.mark.parametrize('name, meant', [('train.lrr', 'train.lr'), ('lr', 'train.lr'), ('eval.momentum', 'train.momentum'),
                                         ('tain.clip', 'train.clip'), ('optim.weigth_decay', 'train.weight_decay')])
def test_the_field_that_may_be_meant(name, meant):
    with pytest.raises(UserError, match=f'no field --config.{name}: did you mean --config.{meant}\\?'):
        flags.check_names(config.base(), [name])


def written_fields(c):
    """Dotted names of what a flag can set, without stages."""
    return [name for name, value in flags._fields(c) if not isinstance(value, ConfigDict) and name not in flags.SET_BY_OTHERS]


def test_each_field_mistyped_is_one_line_with_the_field_that_is_meant():
    """A letter twice, in every field of base() and of every method."""
    c = config.base()
    c.update({method: module.DEFAULTS for method, module in METHODS.items()})
    for name in written_fields(c):
        mistyped = f'{name[:-1]}{name[-1]}{name[-1]}'
        with pytest.raises(UserError) as e:
            flags.check_names(c, [mistyped])
        assert str(e.value) == f'no field --config.{mistyped}: did you mean --config.{name}?'


# Fields of free text: paths, and names that users give. Every other field of words has choices.
FREE_TEXT = {'choose.runs', 'cross.roots', 'cross.runs', 'cross.sources', 'data.exclude', 'data.include', 'data.negatives.ranking', 'data.root',
             'data.store', 'ensemble.runs', 'init_from', 'init_skip', 'model.pretrained', 'row'}


def test_each_choice_misspelt_is_one_line_with_the_choices(tmp_path):
    """Before anything is prepared or compiled. A new field of words is in FREE_TEXT, or is refused here."""
    seen = set()
    for method, module in METHODS.items():
        c = small_config('baseline,size=small')
        with c.unlocked():
            c.update({'method': method, method: module.DEFAULTS})
            c.model.name = '_COVIDNetRedesignTiny' if method == 'cross_site' else c.model.name
            c.train.batch = 16
        words = {name for name in written_fields(c) if isinstance(config.get(c, name), str)} - FREE_TEXT - seen
        seen |= words
        for name in words:
            said = refused(c, name, tmp_path / 'run')
            assert 'nonsense' in said and '\n' not in said and not (tmp_path / 'run').exists(), name
            assert f'--config.{name}=' in said or 'no data source' in said, name
    assert len(seen) >= 22 and {'cmt.classified', 'cross_site.adapter', 'supervised.loss', 'method', 'model.name'} <= seen


def refused(c, name, folder):
    """What a run says whose field is a word that it does not know."""
    wrong = c.copy_and_resolve_references()
    with wrong.unlocked():
        config.put(wrong, name, 'nonsense')
        if name == 'choose.by':
            wrong.update(kind='choose', choose={'runs': 'runs/a,runs/b'})
    with pytest.raises(UserError) as e:
        experiment.run(wrong, folder)
    return str(e.value)
