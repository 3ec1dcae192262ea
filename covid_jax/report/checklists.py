"""How much of a reporting guideline a report answers: items.py says which field answers which item."""

from collections.abc import Mapping, Sequence
from typing import Any

from covid_jax.report.items import LISTS, SOURCES, Item

AUTHOR = 'the author must say'
HEAD = """# Check lists

`python scripts/page_checklists.py` makes this page from `covid_jax/report/items.py`. A test compares them.

Every run leaves a `report.json`. Below stand the items of three reporting guidelines and of a model card: the number, what is asked for in
our own words, and the field of `report.json` that answers it. A field that is empty, as the ones about labels are for data of which the
program knows nothing but the labels, answers nothing: then, too, the author must say. `covid-jax report` prints how many items a run
answers, and `report.html` has the lists filled in.

An answer is what the program knows. Whether it satisfies a journal is for the author to judge, with the original list at hand: numbers and
subjects were taken from public summaries of the lists, not from the originals.
"""


def at(record: Mapping[str, Any], field: str) -> Any:
    """What a field of a report holds, 'data.source' below 'data'; None where there is none."""
    found: Any = record
    for name in field.split('.'):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def holds(value: Any) -> bool:
    """Whether a field says anything: some text, a number, a truth, or what has one of these in it. Why there is no value is no answer."""
    if isinstance(value, Mapping):
        told = {name: of for name, of in value.items() if name != 'reason'}
        return told['value'] is not None if 'value' in told else any(map(holds, told.values()))
    if isinstance(value, list | tuple):
        return any(map(holds, value))
    return value not in (None, '')


def answered(record: Mapping[str, Any], items: Sequence[Item]) -> dict[str, str]:
    """{number: the field that answers it, or AUTHOR} of a list."""
    return {item.number: item.field if item.field and holds(at(record, item.field)) else AUTHOR for item in items}


def count(record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """{list: how many of its items a report answers, of how many}."""
    found = {name: answered(record, items) for name, items in LISTS.items()}
    return {name: (sum(field != AUTHOR for field in of.values()), len(of)) for name, of in found.items()}


def sentence(record: Mapping[str, Any]) -> str:
    """How many items of each list a report answers."""
    return ', '.join(f'{filled} of {of} items of {name}' for name, (filled, of) in count(record).items())


def markdown() -> str:
    """docs/checklists.md."""
    lines = [HEAD]
    for name, items in LISTS.items():
        rows = [f'| {item.number} | {item.asks} | {f"`{item.field}`" if item.field else AUTHOR} |' for item in items]
        lines += [f'## {name}', '', f'{SOURCES[name]}. {sum(bool(item.field) for item in items)} of {len(items)} can be answered.', '',
                  '| item | what is asked for | answered by |', '|---|---|---|', *rows, '']
    return '\n'.join(lines).rstrip() + '\n'
