"""A result beside what simpler evidence reaches on the same exams. What a result claims is the gap above the best of it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import rich.table
from rich.markup import escape

from covid_jax import predictions
from covid_jax.metrics.intervals import with_intervals
from covid_jax.metrics.significance import Difference, paired_bootstrap
from covid_jax.metrics.weighted import weighted_metrics
from covid_jax.predictions import Predictions, aligned
from covid_jax.report.tables import interval, markdown_table, number
from covid_jax.runtime import files
from covid_jax.sources.exams import POSITIVE
from covid_jax.text import printable

FOLDER = 'evidence'  # of a run's folder: a table of answers for each kind of evidence, as predictions.csv is one
NOTES = 'notes.txt'  # in it: what is to be said of these, a line each
SELF = 'the run itself'
LINEAR = 'linear probe'
SITE = 'site'  # of which an exam is: where there are several
SHORTCUTS = ('thumbnail', 'border', 'file', SITE)  # of the data alone, whatever the network
SIMPLER = ('no lungs', *SHORTCUTS)  # what sees little of the disease: the claim is above these
CHANCE = 0.5  # the AUC of what tells nothing
SITES = 4  # that have a column: more do not fit
KINDS = (SELF, 'nearest neighbours', 'random trunk', *SIMPLER)

Entry = dict[str, Any]  # {'value', 'low', 'high', 'level', 'n', ...}, as of a metric


class Evidence(NamedTuple):
    """split, positive: of what the AUCs are. rows: {what answered: its AUC}, the result first, which best and gap are about.
    best: of the SIMPLER, the one of the highest AUC on these exams (so that the gap is rather too small), '' where there is
    none. gap: the result less the best, over patients. notes: what else is to be said. exams, share: how many have a label, and
    how many of these are positive. sites: {site: the same of its exams} where several have labels (of many the largest), else {}."""

    split: str
    positive: str
    level: float
    rows: dict[str, Entry]
    best: str
    gap: Difference
    notes: tuple[str, ...]
    exams: int
    share: float
    sites: Mapping[str, 'Evidence'] = MappingProxyType({})


def leave(folder: Path | str, answers: Mapping[str, Predictions], notes: tuple[str, ...] = ()) -> None:
    """Writes the answers of each kind, and the notes, into FOLDER of a run's folder."""
    place = Path(folder) / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    for kind, of_kind in answers.items():
        predictions.write(place / f'{kind.replace(" ", "_")}.csv', of_kind)
    files.write(place / NOTES, ''.join(f'{printable(note)}\n' for note in notes))


def read(folder: Path | str) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    """The answers of each kind that `leave` left, in the order of KINDS, and the notes; of a folder without any nothing."""
    paths = {kind: Path(folder) / FOLDER / f'{kind.replace(" ", "_")}.csv' for kind in KINDS}
    notes = Path(folder) / FOLDER / NOTES
    return ({kind: predictions.read(path) for kind, path in paths.items() if path.is_file()},
            tuple(notes.read_text(encoding='utf-8').splitlines()) if notes.is_file() else ())


def of_member(run: Path | str, result: Predictions) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    """What stands beside a result that was made of finished runs, for `leave`: the SHORTCUTS of one of them, or why it has
    none. UserError where these answered other exams than the result."""
    left, notes = read(run)
    found = {kind: left[kind] for kind in SHORTCUTS if kind in left}
    aligned([result, *found.values()], [run, *(Path(run) / FOLDER / kind for kind in found)])
    return found, () if found else notes or ('no shortcut probes stand beside the run that they are to be taken from',)


def entries(answers: Mapping[str, Predictions], level: float) -> dict[str, dict[str, dict[str, Entry]]]:
    """{split: {kind: {'auc': its entry with an interval}}}."""
    splits = dict.fromkeys(split for of_kind in answers.values() for split in of_kind.splits)
    return {split: {kind: {'auc': auc(of_kind.of(split), level)} for kind, of_kind in answers.items()} for split in splits}


def auc(answers: Predictions, level: float) -> Entry:
    """The AUC of the positive class as a metric's entry with its interval over patients: of several seeds the mean, which the
    interval takes as they are. answers: probability [n, seeds * classes]."""
    p = answers.labelled()

    def metrics(label, probability):
        positive = label == POSITIVE
        if positive.all() or not positive.any():
            lacking = 'other than class' if positive.any() else 'of class'
            return {'auc': {'value': None, 'n': len(label), 'reason': f'undefined: no examples {lacking} {p.names[POSITIVE]}'}}
        return {'auc': {'value': float(_mean_auc(label, probability, np.ones((1, len(label))))[0]), 'n': len(label)}}

    return with_bounds(metrics, p, _by_seed(p), level)['auc']


def with_bounds(metrics: Any, answers: Predictions, score: np.ndarray, level: float) -> dict[str, Entry]:
    """with_intervals of the answers, whose scores are float [n, ...]."""
    patients = [exam.patient for exam in answers.exams]
    return with_intervals(metrics, answers.label, score, patients, level, answers.names)


def gather(name: str, result: Predictions, others: Mapping[str, Predictions], level: float,
           notes: tuple[str, ...] = ()) -> Evidence | None:
    """The Evidence of a result, called `name`, and of others that answered the same exams of one split; None where no exam has
    a label. UserError for other exams."""
    labelled = result.labelled()
    if not labelled.exams:
        return None
    tables = dict(zip((name, *others), aligned([result, *others.values()], [name, *others]), strict=True))
    rows = {kind: auc(table, level) for kind, table in tables.items()}
    found = [(rows[kind]['value'], kind) for kind in SIMPLER if kind in rows and rows[kind]['value'] is not None]
    best = max(found)[1] if found else ''
    missing = rows[name].get('reason') if rows[name]['value'] is None else 'there is no simpler evidence to compare with'
    gap = _gap(tables[name], tables[best], level) if best else Difference(reason=missing)
    share = float((labelled.label == POSITIVE).mean())
    sites = _of_sites(name, tables, _largest(labelled), level) if len(labelled.sites) > 1 else {}
    smaller = len(labelled.sites) - len(sites)
    if sites and smaller:
        notes = (*notes, f'{smaller} smaller site{"s are" if smaller > 1 else " is"} in all exams alone')
    return Evidence(result.splits[0], result.names[POSITIVE], level, rows, best, gap, notes, len(labelled.exams), share, sites)


def _largest(labelled):
    """The sites of most exams, by name."""
    count = Counter(exam.site for exam in labelled.exams)
    return sorted(sorted(count, key=lambda site: (-count[site], site))[:SITES])


def _of_sites(name, tables, sites, level):
    """{site: the Evidence on its exams alone}, where the site itself tells nothing."""
    others = {kind: table for kind, table in tables.items() if kind not in (name, SITE)}
    return {site: gather(name, tables[name].of(site=site), {kind: table.of(site=site) for kind, table in others.items()}, level)
            for site in sites}


def _gap(a, b, level):
    """The AUC of one less that of the other, the means over their seeds."""
    a = a.labelled()
    b = b.labelled()

    def metrics(label, probability, weight):
        return {'auc': _mean_auc(label, probability, weight)}

    patients = [exam.patient for exam in a.exams]
    return paired_bootstrap(metrics, a.label, _by_seed(a), _by_seed(b), patients, a.names, level=level)['auc']


def _by_seed(answers):
    """The probability of each seed: float [n, seeds, classes]."""
    classes = len(answers.names)
    return answers.probability.reshape(len(answers.exams), answers.probability.shape[1] // classes, classes)


def _mean_auc(label, probability, weight):
    """The mean AUC of the seeds, float [weightings], of probability [n, seeds, classes] and weight [weightings, n]."""
    return np.mean([weighted_metrics(label, p, weight, POSITIVE)['auc'] for p in np.moveaxis(probability, 1, 0)], 0)


def sentence(found: Evidence) -> str:
    """What the gap says."""
    gap = found.gap
    if gap.value is None:
        return f'no gap: {gap.reason}'
    name = next(iter(found.rows))
    far = abs(gap.value)
    bounds = None if gap.low is None or gap.high is None else sorted((gap.low, gap.high))
    if gap.value < 0 and bounds:
        bounds = [-bounds[1], -bounds[0]]
    between = f' [{bounds[0]:.3f}, {bounds[1]:.3f}]' if bounds else ''
    side = f'{far:.3f}{between} {"above" if gap.value > 0 else "below"}' if gap.value else 'that of'
    said = (f'AUC {number(found.rows[name]["value"])} of {name} is {side} the best probe ({found.best}, '
            f'{number(found.rows[found.best]["value"])})')
    told = said if bounds else f'{said}; {gap.reason}'
    if gap.value <= 0:
        return f'there is nothing to claim: {told}'
    if not bounds:
        return f'the claim is the gap, and how sure it is nobody knows: {told}'
    return f'the claim is the gap: {told}' if bounds[0] > 0 else f'the gap may be none: {told}'


def sentences(found: Evidence) -> list[str]:
    """What the gap says, of several sites that of each, since the AUC of all exams may come from telling them apart, unless the site
    alone reaches no more than chance; and the notes."""
    if not found.sites:
        return [sentence(found), *found.notes]
    shares = sorted(of_site.share for of_site in found.sites.values())
    alone = f', the site alone reaches {number(found.rows[SITE]["value"])}' if SITE in found.rows else ''
    whole = (f'all exams: AUC {number(next(iter(found.rows.values()))["value"])}, of which telling the sites apart may be a part '
             f'({100 * shares[0]:.0f} % to {100 * shares[-1]:.0f} % of a site are {found.positive}{alone}): the claims are those '
             'within the sites')
    site = found.rows.get(SITE, {})
    if site.get('low') is not None and site['low'] <= CHANCE <= site['high']:
        whole = f'all exams: {sentence(found)}; the site alone reaches {number(site["value"])} ({interval(site)}), no more than chance'
    return [*(f'{site}: {sentence(of_site)}' for site, of_site in found.sites.items()), whole, *found.notes]


def lines(found: Evidence) -> list[rich.table.Table | str]:
    """What is printed: the title, a table, the sentences, and the notes."""
    header, *rows = _cells(found)
    columns = [rich.table.Column(escape(printable(name)), overflow='fold') for name in header]  # of many sites nothing is cut
    table = rich.table.Table(*columns, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return [printable(_title(found)), table, *map(printable, sentences(found))]


def markdown(found: Evidence) -> str:
    """The same for results.md."""
    said = [f'- {line}' for line in sentences(found)]
    return '\n'.join(printable(line) for line in [f'## {_title(found)}', '', *markdown_table(_cells(found)), *said]) + '\n\n'


def _title(found):
    interval_words = f', with {100 * found.level:g} % intervals' if found.sites else ''
    return f'what simpler evidence reaches: {found.split}, AUC of {found.positive}{interval_words}'


def _cells(found):
    """Rows of the table, the header first: of several sites a column for each, beside that of all exams."""
    if not found.sites:
        rows = [(kind, number(entry['value']), interval(entry)) for kind, entry in found.rows.items()]
        return [('evidence', 'AUC', f'{100 * found.level:g} % interval'), *rows]
    groups = {**found.sites, 'all exams': found}
    rows = [(kind, *(_cell(group.rows.get(kind)) for group in groups.values())) for kind in found.rows]
    return [('evidence', *groups), *rows,
            (f'exams, {found.positive}', *(f'{group.exams}, {100 * group.share:.0f} %' for group in groups.values()))]


def _cell(entry):
    if entry is None:
        return ''
    bounds = interval(entry)
    return f'{number(entry["value"])} ({bounds})' if bounds else number(entry['value'])
