"""A report as one page: what report.json says, with the plots and the scans. Pure: the same report gives the same text."""

from collections.abc import Mapping, Sequence
from typing import Any

from covid_jax.report import checklists, markup
from covid_jax.report.items import LISTS
from covid_jax.report.markup import Picture, folded, paragraph, section, table
from covid_jax.report.tables import interval, number
from covid_jax.text import count, html

WORDS = {'auc': 'AUC', 'average_precision': 'average precision', 'macro_f1': 'macro F1', 'ece': 'ECE', 'brier': 'Brier score'}
TILES = ('auc', 'sensitivity', 'specificity', 'macro_f1')
OF_SITE = ('auc', 'sensitivity', 'specificity', 'accuracy')
MEDICAL = 'Research software, not a medical device.'
Record = Mapping[str, Any]


def page(name: str, record: Record, plots: Mapping[str, Picture], scans: Sequence[tuple[str, str]]) -> str:
    """The page of a report.

    Args:
        name: of the run.
        record: of record.read.
        plots: {'roc', 'pr', 'reliability', 'decision', 'confusion', 'training': picture}, those that there are.
        scans: (heading, markup.scan) of each.
    """
    sections = [('results', 'What it reaches', _results(record)), ('use', 'Intended use and limits', _use(record)),
                ('data', 'Data', _data(record['data'], record['reference'])), ('splits', 'Splits and leakage', _splits(record['splits'])),
                ('curves', 'ROC and precision-recall', _plots(record, plots, ('roc', 'pr'), 'No exam that was answered has a label.')),
                ('calibration', 'Calibration and decisions', _calibration(record, plots)),
                ('confusion', 'Confusion', _confusion(record, plots)), ('sites', 'By site', _sites(record)),
                ('probes', 'What simpler evidence tells', _probes(record['robustness']['shortcuts'], record['results'])),
                ('training', 'Training', _plots(record, plots, ('training',), 'metrics.jsonl is not there, or has fewer than two steps.')),
                ('mistakes', 'Mistakes', _mistakes(record['results'])), ('scans', 'Scans', _scans(record, scans)),
                ('config', 'Config and versions', _config(record)), ('lists', 'Check lists', _lists(record))]
    links = ''.join(f'<li><a href="#{anchor}">{html(title)}</a></li>' for anchor, title, _ in sections)
    head = ['<a class="skip" href="#results">To the results</a>',
            f'<header><p class="soft">{html(name)}</p><h1>{html(record["study"]["title"])}</h1>',
            paragraph(f'{MEDICAL} {record["study"]["row"]}'), f'</header><nav aria-label="sections"><ul>{links}</ul></nav><main>']
    return markup.page(f'{name}: report', [*head, *(section(*of) for of in sections), '</main>'])


def of_parts(name: str, parts: Sequence[tuple[str, Record]]) -> str:
    """The page of a run of several parts. parts: (folder below the run's, report) of each."""
    rows = []
    for folder, record in parts:
        metrics = record['results']['internal']
        cells = ''.join(f'<td>{html(_value(_frozen(metrics, metric)))}</td>' for metric in TILES)
        rows.append(f'<tr><th scope="row"><a href="{html(folder)}/report.html">{html(folder)}</a></th>'
                    f'<td>{html(record["results"]["split"] or "nothing is scored")}</td>{cells}</tr>')
    heads = ''.join(f'<th scope="col">{html(head)}</th>' for head in ('part', 'split', *(_word(metric) for metric in TILES)))
    grid = (f'<div class="wide long"><table><caption>What each part reaches, with its interval</caption><thead><tr>{heads}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>')
    told = paragraph('Means and spreads over folds and seeds stand in results.md.', 'soft')
    return markup.page(f'{name}: report', [f'<main><h1>{html(name)}</h1>', paragraph(MEDICAL),
                                           section('parts', 'Its parts', grid, told), '</main>'])


def _word(metric):
    return WORDS.get(metric, metric.replace('_', ' '))


def _frozen(metrics, name):
    """The metric at the frozen threshold, where it depends on one."""
    return metrics.get(f'{name}_frozen', metrics.get(name))


def _value(entry):
    if not entry:
        return '-'
    bounds = interval(entry)
    return f'{number(entry["value"])} ({f"{bounds}, " if bounds else ""}n = {entry.get("n", "-")})'


def _cells(entry):
    """Value, interval and number of exams, each a cell; empty where there is no entry."""
    return (number(entry['value']), interval(entry), entry.get('n', '')) if entry else ('', '', '')


def _decided(record):
    """How probabilities become decisions."""
    threshold = record['evaluation']['threshold']
    return f'at the threshold {threshold["value"]:.3f}, frozen on validation' if threshold else 'as most probable: no threshold is frozen'


def _results(record):
    metrics = record['results']['internal']
    if not metrics:
        return paragraph('Nothing is scored: the run does not classify, no exam of validation or test has a label, or predictions.csv or '
                         'metrics.json is not there.', 'none')
    positive = metrics.get('auc', {}).get('positive', '')
    tiles = ''.join(f'<li><span>{html(_word(name))}</span><b>{html(number(entry["value"]))}</b>'
                    f'<span>{html(interval(entry) or "no interval")}, n = {html(entry.get("n", "-"))}</span></li>'
                    for name in TILES if (entry := _frozen(metrics, name)))
    parts = [paragraph(f'On {record["results"]["split"]}, positive class {positive}; decisions {_decided(record)}.'),
             f'<ul class="tiles">{tiles}</ul>']
    shown = record['results']['split']
    for split, groups in sorted(record['results']['metrics'].items(), key=lambda item: item[0] != shown):
        for group, of in groups.items():
            if not group.startswith('site '):
                told = f'{split}, {"by exam" if group == "all" else "by patient"}'
                grid = _grid(told, of)
                parts.append(grid if split == shown and group == 'all' else folded(told, grid))
    return ''.join(parts)


def _grid(caption, metrics):
    names = [name for name in metrics if not name.endswith('_frozen')]
    level = next((f'{100 * entry["level"]:g} % ' for entry in metrics.values() if 'level' in entry), '')
    rows = [('metric', 'value', f'{level}interval', 'n', 'at the frozen threshold', f'{level}interval', 'n')]
    for name in names:
        rows.append((_word(name), *_cells(metrics[name]), *_cells(metrics.get(f'{name}_frozen'))))
    return table(caption, rows) + _notes(metrics.values())


def _notes(entries):
    """Why there is no value or no interval, and what else is to be said of these entries, each once."""
    notes = dict.fromkeys(text for entry in entries for key in ('reason', 'note') for text in entry.get(key, '').split('; ') if text)
    return markup.lines(list(notes)) if notes else ''


def _use(record):
    return paragraph(record['intended_use'], 'warn') + markup.lines(record['limits'])


def _data(data, reference):
    if not data['counts']:
        return paragraph('exams.csv is not there, or names no exams of the run itself: what is made of other runs has its data in them.',
                         'none')
    names = list(dict.fromkeys(name for sites in data['counts'].values() for of in sites.values() for name in of))
    rows = [('split', 'site', *names, 'patients of the split')]
    rows += [(split, site, *(of.get(name, 0) for name in names), data['patients'].get(split, data['patients'].get('', '')))
             for split, sites in data['counts'].items() for site, of in sites.items()]
    words = '; '.join(f'{name}: {", ".join(others) or "this alone"}' for name, others in data['classes'].items())
    told = {'source': data['source'], 'sites': _said(data['sites']), 'files': _said(data['formats']),
            'values': _said(data['units']) or 'not known', 'labels that count as a class': words, 'who is in': data['eligibility'],
            'prepared': data['preparation'], 'of a scan': data['subsets'], 'how it was taken': data['acquisition'],
            'what the label is': reference['definition']}
    missing = data['missing']
    left = paragraph(f'{missing["not_read"]} of {data["flow"]["listed"]} were not read, {missing["without_label"]} have no label: '
                     f'{missing["rule"]}.')
    more = missing['not_read'] - len(missing['reasons'])
    reasons = [*missing['reasons'], *([f'and {more} more'] if more else [])]
    return (table('Exams of each class', rows) + left + (markup.lines(reasons) if reasons else '')
            + markup.fields('What the data are', told))


def _said(value):
    if isinstance(value, Mapping):
        return ', '.join(f'{n} {name}' for name, n in value.items())
    return ', '.join(map(str, value))


def _splits(splits):
    if not splits['assignment']:
        return paragraph('exams.csv is not there, or names no exams of the run itself: nothing can be checked.', 'none')
    found = []
    if splits['patients_in_two'] or not splits['without_patient']:
        found.append(_in_two(splits['patients_in_two'], 'patient is', 'patients are'))
    if splits['without_patient']:
        alone = count(splits['without_patient'], 'exam counts as a patient of its own', 'exams count as patients of their own')
        found.append(paragraph(f'{alone}, as the source names them: other exams of the same people would not be seen.', 'none'))
    if splits['copies_in_two'] or not splits['without_hash']:
        found.append(_in_two(splits['copies_in_two'], 'scan of equal content is', 'scans of equal content are'))
    if splits['without_hash']:
        found.append(paragraph(f'exams.csv has no hash of {count(splits["without_hash"], "exam")}: copies of these would '
                               'not be seen.', 'none'))
    earlier = (f'It builds on {count(splits["earlier_runs"], "earlier run")}, whose exams were compared with these.'
               if splits['earlier_runs'] else '')
    return ''.join([paragraph(f'{splits["assignment"]}; {splits["balance"]}.'), *found, paragraph(earlier) if earlier else '',
                    paragraph('Patients of earlier runs were allowed in validation and test.', 'bad') if splits['leak_allowed'] else ''])


def _in_two(n, one, more):
    return paragraph(f'{count(n, one, more)} in more than one split.', 'bad' if n else 'good')


def _plots(record, plots, names, otherwise):
    band = f'The band, of {100 * record["results"]["level"]:g} %, holds each point by itself'
    captions = {'roc': f'Receiver operating characteristic. {band}; a dot is the frozen threshold.',
                'pr': f'Precision over recall. {band}. A dotted line is the share of the positive class, which chance reaches.',
                'reliability': 'How often it is right at each probability, and how many exams have it.',
                'decision': 'What decisions by it are worth, beside treating all and none.',
                'confusion': 'Counts, and shares of each true class.',
                'training': 'Loss over the steps of training, and validation.'}
    found = [markup.figure(plots[name], captions[name]) for name in names if name in plots]
    return f'<div class="plots">{"".join(found)}</div>' if found else paragraph(otherwise, 'none')


def _calibration(record, plots):
    found = record['results']['calibration']
    rows = [('', 'as answered', 'interval', 'n', 'at the temperature', 'interval', 'n')]
    for name, entry in found.get('before', {}).items():
        rows.append((_word(name), *_cells(entry), *_cells(found.get('after', {}).get(name))))
    grid = table(f'Calibration on {record["results"]["split"]}', rows) if len(rows) > 1 else ''
    notes = _notes([entry for when in ('before', 'after') for entry in found.get(when, {}).values()])
    drawn = _plots(record, plots, ('reliability', 'decision'), 'No exam that was answered has a label.')
    return _temperature(found.get('temperature')) + grid + notes + drawn


def _temperature(entry):
    if not entry:
        return paragraph('calibration.json is not there, or says nothing of this split: no temperature is known.', 'none')
    if entry['value'] is None:
        return paragraph(f'No temperature is fitted: {entry.get("reason", "")}.', 'none')
    note = f' ({entry["note"]})' if entry.get('note') else ''
    return paragraph(f'The temperature {entry["value"]:.2f} was fitted on {count(entry["n"], "validation exam")}{note}.')


def _confusion(record, plots):
    results = record['results']
    if not results['confusion']:
        return paragraph('No exam that was answered has a label.', 'none')
    names = results['confusion']['classes']
    rows = [('truth', *(f'decided {name}' for name in names))]
    rows += [(name, *of) for name, of in zip(names, results['confusion']['counts'], strict=True)]
    others = 'Where the positive class does not reach the threshold, the most probable of the others is decided for.'
    told = paragraph(others) if len(names) > 2 and record['evaluation']['threshold'] else ''
    return told + table(f'Decisions on {results["split"]}, {_decided(record)}', rows) + _plots(record, plots, ('confusion',), '')


def _sites(record):
    sites = record['robustness']['sites']
    if not isinstance(sites, Mapping) or not sites:
        return paragraph('The data name no sites, or one alone: nothing here says how it does elsewhere.', 'none')
    rows = [('site', 'exams', *map(_word, OF_SITE))]
    rows += [(site, of['accuracy']['n'], *(_value(_frozen(of, name)) for name in OF_SITE)) for site, of in sites.items()]
    return table(f'Each site of {record["results"]["split"]}', rows, long=True)


def _probes(shortcuts, results):
    split = results['split']
    if not shortcuts.get(split):
        missing = 'shortcuts.json is not there, or knows no probes of this split: none can be shown beside the run.'
        return paragraph(shortcuts.get('reason') or missing, 'none')
    rows = [('what is seen', 'AUC', 'interval', 'n')]
    answers = {'the run': results['internal'].get('auc', {}), **{name: of['auc'] for name, of in shortcuts[split].items()}}
    rows += [(name, *_cells(entry)) for name, entry in answers.items() if entry]
    told = paragraph('A linear model on 8 x 8 means of a scan, on its border, on what its file tells, or on its site. A network that '
                     'reaches no more than these was not needed for it.')
    return told + table(f'AUC on {split}', rows)


def _mistakes(results):
    found = results['mistakes']
    if not found:
        return paragraph('No exam that was answered has a label.', 'none')
    listed = len(found['surest'])
    told = paragraph(f'{found["number"]} of {found["of"]} exams of {results["split"]} are decided wrongly'
                     f'{f"; the {listed} surest of them" if listed < found["number"] else "; the surest first" if listed else ""}.')
    rows = [('exam', 'truth', 'decided', 'probability', 'patient', 'site')]
    rows += [(of['id'], of['label'], of['decided'], f'{of["asked"]} {of["probability"]:.3f}', of['patient'], of['site'])
             for of in found['surest']]
    return told + (table('The surest mistakes', rows, long=True) if found['surest'] else '')


def _scans(record, scans):
    if not scans and not record['results']['split']:
        return paragraph('No exam that was answered has a label: no map is made.', 'none')
    if not scans:
        return paragraph('looks.npz is not there, or has none of the exams that were answered: covid-jax report makes it where it is not there, '
                         'and data and checkpoint of the run are at hand.', 'none')
    told = paragraph('Each scan as it was prepared for the network, and beside it where it looked: Grad-CAM of the class that it decided for. A map '
                     'shows what moved the answer, not that the answer is right.')
    shown = ''.join(f'<div><h3>{html(heading)}</h3>{of}</div>' for heading, of in scans)
    return f'{told}<div class="scans">{shown}</div>'


def _config(record):
    model = record['model']
    told = {'network': model['network'], 'method': model['method'], 'parameters': f'{model["parameters"]:,}' if model['parameters'] else '',
            'starts': model['start'], 'input': model['input'], 'output': model['output'], 'checkpoint': record['training']['selection'],
            'several models': record['training']['ensemble'],
            'versions': ', '.join(f'{name} {of}' for name, of in record['software']['versions'].items()),
            'to be had': record['availability']}
    config = markup.fields('config.json, without paths', record['training']['config'], ('field', 'value'))
    return markup.fields('The model', told) + (folded('Every field of the config', config) if config else '')


def _lists(record):
    parts = [paragraph('What reporting guidelines ask for, in our own words, and the field of report.json that answers it.')]
    for name, (filled, of) in checklists.count(record).items():
        answers = checklists.answered(record, LISTS[name])
        rows = [('item', 'asks', 'answered by'), *((item.number, item.asks, answers[item.number]) for item in LISTS[name])]
        parts.append(folded(f'{name}: {filled} of {of} items', table(name, rows, long=True)))
    return ''.join(parts)
