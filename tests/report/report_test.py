"""The page and the report.json of a run: sound for a parser, complete for a guideline, and the same for the same folder."""

import json
import re
import shutil

import numpy as np
import pytest
from finished_runs import finish, leave
from report_pages import CONFIG, Parsed, assert_sound

from covid_jax import evaluate, predictions
from covid_jax.metrics.bands import precision_recall_band, roc_band
from covid_jax.report import checklists, curves, looks, record, written
from covid_jax.report.items import LISTS
from covid_jax.runtime import files
from covid_jax.sources.exams import Exam
from covid_jax.text import html

EVIL = '<script>alert(1)</script>'


def test_the_page_is_whole_and_asks_nobody_for_anything(folder):
    found = written.write(folder)
    text = (folder / 'report.html').read_text()
    parsed = assert_sound(text)
    images = parsed.of('img')
    assert len(images) == 6 + looks.SLICES  # the plots, and the slices of the scan
    assert len([image for image in images if image.get('class') == 'peak']) == 1
    assert {section['id'] for section in parsed.of('section')} >= {'results', 'use', 'data', 'splits', 'sites', 'probes', 'scans', 'lists'}
    assert 'not a medical device' in parsed.text and 'is not there' not in parsed.text
    assert f'{found["results"]["internal"]["auc"]["value"]:.3f}' in parsed.text
    assert len(text) < 6e6
    results = found['results']
    counts = np.array(results['confusion']['counts'])
    mistakes = results['mistakes']
    assert results['split'] == 'test' and counts.sum() == mistakes['of'] == 40 and mistakes['number'] == 40 - np.trace(counts) > 0
    threshold = found['evaluation']['threshold']['value']
    for of in mistakes['surest']:
        assert of['decided'] == ('covid' if of['probability'] >= threshold else 'noncovid') != of['label']
    sure = [abs(of['probability'] - 0.5) if (of['probability'] >= 0.5) == (of['decided'] == 'covid') else -abs(of['probability'] - 0.5)
            for of in mistakes['surest']]
    assert sure == sorted(sure, reverse=True)


def test_the_same_folder_gives_the_same_bytes(folder, write):
    rows = curves.training_rows(folder)
    assert len({curves.png(curves.training_figure(rows)) for _ in range(2)}) == 1
    write(folder)
    first = [(folder / name).read_bytes() for name in ('report.json', 'report.html')]
    write(folder)
    assert first == [(folder / name).read_bytes() for name in ('report.json', 'report.html')]


def test_what_a_run_lacks_is_said_and_nothing_else_fails(folder, write):
    """As of an older version, or of a part that trains nothing."""
    for name in ('exams.csv', 'metrics.jsonl', 'shortcuts.json', 'network.txt', 'looks.npz'):
        (folder / name).unlink()
    found = write(folder)
    told = assert_sound((folder / 'report.html').read_text()).text
    for name in ('exams.csv', 'metrics.jsonl', 'shortcuts.json', 'looks.npz'):
        assert f'{name} is not there' in told
    assert found['data']['flow'] == {} and found['explanations']['method'] == ''
    (folder / 'predictions.csv').unlink()
    (folder / 'metrics.json').unlink()
    write(folder)
    assert 'does not classify' in assert_sound((folder / 'report.html').read_text()).text


def test_without_a_test_split_the_report_is_of_validation_and_says_so(folder, write):
    answers = predictions.of_run(folder).of('val')
    predictions.write(folder / 'predictions.csv', answers)
    files.write(folder / 'metrics.json', json.dumps(evaluate.all_metrics(answers)))
    found = write(folder)
    assert found['results']['split'] == 'val' and any('too good' in limit for limit in found['limits'])


def test_patients_and_copies_in_two_splits_are_counted_and_nothing_is_called_disjoint(folder, write):
    """Of 81 exams one patient is in train and test, and one scan is in val as in train."""
    lines = (folder / 'exams.csv').read_text().splitlines()
    row = next(line for line in lines if ',test,' in line).split(',')
    copied = next(line for line in lines if ',val,' in line).split(',')
    more = ['b', row[1], *row[2:3], 'train', 'covid', 'x', *row[6:]], ['c', 'c', 'oslo', 'train', 'covid', copied[5], *row[6:]]
    (folder / 'exams.csv').write_text('\n'.join([*lines, *map(','.join, more)]) + '\n')
    found = record.read(folder)
    splits = found['splits']
    assert (splits['patients_in_two'], splits['copies_in_two'], splits['disjoint']) == (1, 1, '')
    assert found['checklists']['CLAIM 2024']['20'] == checklists.AUTHOR
    write(folder)
    told = Parsed((folder / 'report.html').read_text()).text
    assert '1 patient is in more than one split' in told and '1 scan of equal content is in more than one split' in told


def test_copies_are_not_called_absent_where_a_hash_lacks(folder, write):
    lines = (folder / 'exams.csv').read_text().splitlines()
    cells = lines[-1].split(',')
    cells[lines[0].split(',').index('hash')] = ''
    files.write(folder / 'exams.csv', '\n'.join([*lines[:-1], ','.join(cells)]) + '\n')
    assert write(folder)['splits']['disjoint'] == 'patients'
    told = Parsed((folder / 'report.html').read_text()).text
    assert 'no hash of 1 exam:' in told and '0 patients are' in told and 'equal content' not in told


def test_patients_whom_the_source_does_not_tell_are_a_limit(folder, write):
    kept = json.loads((folder / 'config.json').read_text())
    kept['data']['source'] = 'folder'
    files.write(folder / 'config.json', json.dumps(kept))
    found = record.read(folder)
    assert any('81 exams count as patients of their own' in limit for limit in found['limits'])
    assert (found['splits']['without_patient'], found['splits']['disjoint']) == (81, 'scans of equal content')
    write(folder)
    told = Parsed((folder / 'report.html').read_text()).text
    assert '81 exams count as patients of their own' in told and 'patients are in' not in told
    lines = (folder / 'exams.csv').read_text().splitlines()
    one, other = (line.split(',') for line in lines[-2:])
    files.write(folder / 'exams.csv', '\n'.join([*lines[:-1], ','.join([other[0], one[1], *other[2:]])]) + '\n')
    assert record.read(folder)['splits']['without_patient'] == 79  # two are of one patient


def test_names_that_are_markup_or_formulas_are_text_everywhere(tmp_path, write):
    """On the page and in the table; `=1+1` keeps its apostrophe in the table alone, and no control sign is on the page."""
    names = (EVIL, 'covid')
    exams = [Exam(f'e{i}\x1b[2J', '=1+1' if i == 23 else f'"><img src=x>{i}', 'a&b', names[i % 2], ('val', 'test')[i // 6 % 2], '') for i in range(24)]
    leave(tmp_path, exams, np.linspace(1, 0, 24), names)
    metrics = evaluate.all_metrics(predictions.of_run(tmp_path))
    finish(tmp_path, config={'data.classes': list(names), **CONFIG}, metrics=metrics, learnt=exams)
    files.write(tmp_path / 'metrics.json', json.dumps(metrics))
    write(tmp_path)
    text = (tmp_path / 'report.html').read_text()
    parsed = assert_sound(text)
    assert EVIL in parsed.text and '<td>=1+1</td>' in text and '\x1b' not in text
    assert ",'=1+1,a&b," in (tmp_path / 'predictions.csv').read_text()
    assert html(EVIL) == '&lt;script&gt;alert(1)&lt;/script&gt;' and html('"a\nb"') == '&quot;a b&quot;'


def test_a_run_of_parts_has_a_page_that_leads_to_each(folder, write):
    write(folder)
    part = folder / 'seed0'
    part.mkdir()
    shutil.copy(folder / 'report.json', part)
    written.write_whole(folder, [part])
    parsed = Parsed((folder / 'report.html').read_text())
    assert [link['href'] for link in parsed.of('a')] == ['seed0/report.html']


def full():
    """A report that says something in every field that an item asks for."""
    found = {}
    for items in LISTS.values():
        for item in items:
            *sections, last = item.field.split('.')
            branch = found
            for section in sections:
                branch = branch.setdefault(section, {})
            branch[last] = {'value': 0.5} if item.field else ''
    return found


def test_a_field_that_is_gone_leaves_its_items_to_the_author():
    whole = full()
    fields = {item.field for items in LISTS.values() for item in items} - {''}
    for items in LISTS.values():
        before = checklists.answered(whole, items)
        for field in fields:
            for empty in ('', None, {}, [], {'value': None, 'n': 3}, {'a': {'b': ''}}, {'reason': 'no probe'}):
                without = json.loads(json.dumps(whole))
                section, _, last = field.rpartition('.')
                (checklists.at(without, section) if section else without)[last] = empty
                after = checklists.answered(without, items)
                expected = {number: checklists.AUTHOR if of == field else of for number, of in before.items()}
                assert after == expected


@pytest.mark.parametrize(('name', 'items', 'parts'), [('CLAIM 2024', 44, 44), ('TRIPOD+AI', 27, 52), ('STARD-AI', 40, 48)])
def test_the_lists_have_the_numbers_of_their_guidelines(name, items, parts):
    numbers = [item.number for item in LISTS[name]]
    assert len(numbers) == len(set(numbers)) == parts
    assert list(dict.fromkeys(int(re.match(r'\d+', number)[0]) for number in numbers)) == list(range(1, items + 1))


def test_a_run_fills_34_items_of_claim_and_fewer_of_data_that_nobody_made_up(folder):
    filled, of = checklists.count(record.read(folder))['CLAIM 2024']
    assert of == 44 and filled >= 34
    kept = json.loads((folder / 'config.json').read_text())
    kept['data']['source'] = 'folder'
    (folder / 'config.json').write_text(json.dumps(kept))
    of_folder = record.read(folder)
    lost = {number for number, field in checklists.answered(of_folder, LISTS['CLAIM 2024']).items() if field == checklists.AUTHOR}
    assert lost == {'3', '4', '11', '13', '14', '15', '16', '17', '18', '21', '33', '34', '36', '44'}


def test_the_page_of_check_lists_is_what_the_script_makes(root):
    assert (root / 'docs' / 'checklists.md').read_text() == checklists.markdown(), 'run python scripts/page_checklists.py'


def test_a_look_keeps_the_hottest_slice_and_comes_back(tmp_path):
    image = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 320, 160), np.uint8)
    heat = np.zeros(image.shape)
    heat[17, 80:160, 40:80] = 2.0
    made = looks.thinned('a', image, heat)
    assert 17 in made.slices and made.slices[made.hottest] == 17 and len(made.slices) == looks.SLICES
    assert made.image.shape == made.heat.shape == (16, 160, 80)
    assert made.heat.max() == 255 and (made.image[:, 0, 0] == made.slices).all()
    looks.keep(tmp_path, [made])
    back, = looks.read(tmp_path)
    assert back.id == 'a' and back.depth == 40 and (back.heat == made.heat).all()


def test_a_band_is_as_wide_as_the_binomial_law_says():
    """Scores that tell nothing, 100 exams of a class: at half of the false alarms, sensitivity varies by sqrt(0.25 / 100 + 0.25 / 100). Two
    equal exams of each patient make it sqrt(2) as wide as if they were of two."""
    rng = np.random.default_rng(1)
    label = np.arange(200) % 2
    score = rng.random(200)
    band = roc_band(label, score, np.arange(200))
    middle = slice(30, 71)
    width = (band.high - band.low)[middle].mean()
    assert 0.75 < width / (2 * 1.96 * 0.0707 * np.mean(2 * np.sqrt(band.grid * (1 - band.grid))[middle])) < 1.25
    twice = roc_band(np.tile(label, 2), np.tile(score, 2), np.tile(np.arange(200), 2))
    apart = roc_band(np.tile(label, 2), np.tile(score, 2), np.arange(400))
    assert 1.2 < (twice.high - twice.low)[middle].mean() / (apart.high - apart.low)[middle].mean() < 1.65


def test_a_band_of_what_is_told_apart_is_the_curve():
    label = np.arange(40) % 2
    for band in (roc_band(label, label, np.arange(40)), precision_recall_band(label, label, np.arange(40))):
        assert (band.low == 1).all() and (band.high == 1).all()
    assert roc_band(label, label, label).low is None  # one patient of each class
    assert roc_band(np.ones(4), np.arange(4), np.arange(4)) is None
