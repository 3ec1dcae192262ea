"""docs/config.md: every field of a config, from covid_jax/config.py and the DEFAULTS of the methods, whose comments say what each means.

    python scripts/page_config.py
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from covid_jax import config
from covid_jax.flags import SET_BY_OTHERS
from covid_jax.methods import METHODS

PAGE = Path(__file__).parents[1] / 'docs' / 'config.md'
SECTIONS = {  # in the order of the page, each with what it is about
    '': 'The whole run',
    'data': 'Scans, classes and splits. [data.md](data.md) explains them',
    'data.negatives': 'Which exams without COVID are learnt from, where a ranking chooses',
    'data.phantom': 'The synthetic scans of `--config.data.source=phantom`',
    'prep': 'How a scan is prepared, once, before training',
    'model': 'The network. [networks.md](networks.md) lists them',
    'train': 'The training',
    'views': 'How training sees a prepared scan',
    'eval': 'Validation, test, and what a run leaves of them',
    'ranking': 'Of a part of the kind `rank`',
    'ensemble': 'Of a part of the kind `ensemble`',
    'choose': 'Of a part of the kind `choose`',
    'cross': 'Of a part of the kind `cross`',
}
HEAD = """# Fields of a config

`python scripts/page_config.py` makes this page from `covid_jax/config.py` and `covid_jax/methods/*.py`. A test compares them.

Every field below is a flag of `python -m covid_jax.main` and of `covid-jax plan`: write `--config.` before its name. The defaults are
those of a config that sets nothing. The files in `configs/` set some fields otherwise, and a flag wins over both.

| what | how it is written |
|---|---|
| a number or a word | `--config.train.lr=1e-4`, `--config.train.optimizer=sgd` |
| true or false | `--config.model.remat=True`, or `--config.model.remat` and `--noconfig.model.remat` |
| several values, a tuple | `--config.prep.size="(1,96,96)"`; one alone: `--config.data.sites="('oslo',)"`; none: `--config.prep.window="()"` |
| an empty text | `--config.init_skip=""` |
| a field of one stage | `--config.STAGE.FIELD`, as `--config.finetune.train.lr=1e-4`; the stages of a config are its field `stages` |
| a field of all stages | `--config.FIELD`: every stage follows it that does not set the field itself |
| another method | `--config.method=supervised`; the fields of the methods are at the end of this page |

A name that is no field ends the command in one line that names the field that may be meant.
"""


def meanings(text: str) -> dict[str, str]:
    """{dotted name: comment} of the fields in the source of a module: the keys of its dicts NAME = {...}, under NAME, and what its
    functions assign to `c`, under their own names. A comment ends the field's first line or stands in the lines above it."""
    comments = {token.start[0]: (token.string.lstrip('# '), token.line.lstrip().startswith('#'))
                for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[-1]
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == 'c':
            found[target.attr] = _comment(comments, node)
            found |= _of_dict(comments, node.value, target.attr)
        elif isinstance(target, ast.Name):
            found |= _of_dict(comments, node.value, target.id)
    return found


def _of_dict(comments: dict, node: ast.expr, name: str) -> dict[str, str]:
    found = {}
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                found[f'{name}.{key.value}'] = _comment(comments, key)
                found |= _of_dict(comments, value, f'{name}.{key.value}')
    return found


def _comment(comments: dict, node: ast.stmt | ast.expr) -> str:
    """What is said of a field: in the lines above it, and at the end of its own."""
    said = []
    line = node.lineno - 1
    while line in comments and comments[line][1]:
        said.insert(0, comments[line][0])
        line -= 1
    if node.lineno in comments:
        said.append(comments[node.lineno][0])
    return ' '.join(said)


def page() -> str:
    """The page, as Markdown."""
    base = config.base()
    lines = [HEAD]
    told = {_dotted(name): meaning for name, meaning in meanings(_source(config)).items()}
    for section, about in SECTIONS.items():
        fields = config.get(base, section) if section else base
        lines += [f'## {f"`{section}`" if section else about}', '', *([f'{about}.', ''] if section else [])]
        lines += _table(section, fields, told)
    lines += ['## The methods', '', 'Each method has the fields of its own section, and `--config.method` says which one trains.', '']
    for name, module in METHODS.items():
        of_method = {field.replace('DEFAULTS', name): meaning for field, meaning in meanings(_source(module)).items()}
        lines += [f'### `{name}`', '', *_table(name, ConfigDict(module.DEFAULTS), of_method)]
    return '\n'.join(lines).rstrip() + '\n'


def _source(module: ModuleType) -> str:
    return Path(module.__file__ or '').read_text()


def _dotted(name: str) -> str:
    """DATA.source of the module is data.source of the config."""
    first, _, rest = name.partition('.')
    return f'{first.lower()}.{rest}' if rest else first


def _table(section: str, fields: ConfigDict, told: dict[str, str]) -> list[str]:
    rows = ['| field | default | meaning |', '|---|---|---|']
    named = {f'{section}.{name}' if section else name: value for name, value in _single(fields)}
    for name in sorted(named, key=list(told).index):  # in the order of the source
        rows.append(f'| `{name}` | {_cell(f"`{named[name]!r}`")} | {_cell(told[name])} |')
    return [*rows, '']


def _single(fields: ConfigDict) -> Iterator[tuple[str, object]]:
    """The fields that are no sections, but for those that no flag sets."""
    for name, value in fields.items():
        if not isinstance(value, ConfigDict) and name not in SET_BY_OTHERS:
            yield name, value


def _cell(text: str) -> str:
    return text.replace('|', '\\|')


if __name__ == '__main__':
    PAGE.write_text(page())
