"""docs/config.md: it is what scripts/page_config.py makes, and every field that a flag can set is in it with its meaning."""

import re
import runpy
import shlex

import pytest

from covid_jax import UserError, config, flags
from covid_jax.flags import SET_BY_OTHERS
from covid_jax.methods import METHODS


@pytest.fixture(scope='module')
def script(root):
    return runpy.run_path(str(root / 'scripts' / 'page_config.py'))


def fields(section, prefix=''):
    """(dotted name, default) of all that is no section."""
    for name, value in section.items():
        if hasattr(value, 'items'):
            yield from fields(value, f'{prefix}{name}.')
        elif prefix + name not in SET_BY_OTHERS:
            yield prefix + name, value


def test_the_page_is_what_the_script_makes(script, root):
    assert (root / 'docs' / 'config.md').read_text() == script['page'](), 'run python scripts/page_config.py'


def test_every_field_is_in_it_once_with_its_default_and_a_meaning(script):
    rows = [re.split(r' (?<!\\)\| ', line.strip('| ')) for line in script['page']().splitlines() if line.startswith('| `')]
    expected = dict(fields(config.base()))
    for name, module in METHODS.items():
        expected |= {f'{name}.{field}': value for field, value in module.DEFAULTS.items()}
    told = {name.strip('`'): default.strip('`').replace('\\|', '|') for name, default, _ in rows}
    assert told == {name: repr(value) for name, value in expected.items()} and len(told) == len(rows)
    assert not [name for name, _, meaning in rows if len(meaning) < 4]


def test_flags_are_written_as_it_says(script, root, monkeypatch):
    """Each example, of a config that has the stage that it names."""
    monkeypatch.chdir(root)
    examples = [shlex.split(code)[0] for code in re.findall('`(--[^`]+)`', script['HEAD']) if ('=' in code or 'remat' in code) and 'FIELD' not in code]
    assert len(examples) >= 10
    for flag in examples:
        given = flags.parse(['--config=configs/self_trans.py', flag]).config
        name, _, value = flag.partition('=')
        found = config.get(given, name.partition('config.')[2])
        assert str(found).replace(' ', '') in (value, str(float(value)) if value[:1].isdigit() else value) or isinstance(found, bool)


def test_each_field_mistyped_is_one_line_that_names_it():
    """A letter is doubled."""
    c = config.base()
    for name, _ in fields(c):
        with pytest.raises(UserError) as error:
            flags.check_names(c, [f'{name}{name[-1]}'])
        assert str(error.value) == f'no field --config.{name}{name[-1]}: did you mean --config.{name}?'


def test_a_comment_is_of_the_field_that_it_stands_at(script):
    """Above it in two lines, at its end, of a section that begins there, and of what a function sets; a comment between is not."""
    found = script['meanings']("""
A = {
    'x': 1,  # one
    # two
    # lines
    'y': (3,
          4),
    'z': {  # a section
        'w': 5,
    },
}
# of nobody

def base():
    c.v = 6  # six
    c.s = {'u': 7}  # seven
    c.t = 8
""")
    assert found == {'A.x': 'one', 'A.y': 'two lines', 'A.z': 'a section', 'A.z.w': '', 'v': 'six', 's': 'seven', 's.u': 'seven', 't': ''}
