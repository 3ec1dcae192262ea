"""What a report claims of a run is what the run's files say: of three classes, of folds, of what answers nothing, of an ensemble."""

import json
import shutil

import numpy as np
import pytest
from finished_runs import finish, leave
from report_pages import CONFIG, Parsed, assert_sound

from covid_jax import UserError, evaluate, predictions
from covid_jax.report import checklists, curves, data_card, evidence, looks, record
from covid_jax.runtime import files
from covid_jax.sources.exams import Exam

THREE = ('normal', 'covid', 'pneumonia')


def config(folder, **fields):
    """Changes config.json of a run: 'data__source' is data.source; None takes the field out."""
    kept = json.loads((folder / 'config.json').read_text())
    for name, value in fields.items():
        *sections, last = name.split('__')
        branch = kept
        for section in sections:
            branch = branch.setdefault(section, {})
        branch.pop(last, None) if value is None else branch.update({last: value})
    files.write(folder / 'config.json', json.dumps(kept))


def exams_csv(folder, change):
    """Changes the rows of exams.csv, {column: cell}: change(row) -> row."""
    header, *lines = (folder / 'exams.csv').read_text().splitlines()
    names = header.split(',')
    rows = [change(dict(zip(names, line.split(','), strict=True))) for line in lines]
    files.write(folder / 'exams.csv', '\n'.join([header, *(','.join(row.values()) for row in rows)]) + '\n')


def page(folder):
    return assert_sound((folder / 'report.html').read_text())


def claim(folder, item):
    return record.read(folder)['checklists']['CLAIM 2024'][item]


def test_of_three_classes_all_decisions_are_at_the_frozen_threshold(tmp_path, write):
    """As `predict` decides: covid from the threshold up, else the more probable of the others. Counted by hand."""
    exams = [Exam(f'e{i}', f'e{i}', 'oslo', THREE[i % 3], ('val', 'test')[i // 30], '') for i in range(60)]
    leave(tmp_path, exams, np.zeros(60), THREE)
    rng = np.random.default_rng(3)
    covid = np.where(np.arange(60) % 3 == 1, rng.uniform(0.15, 0.3, 60), rng.uniform(0.05, 0.2, 60))
    normal = (1 - covid) * rng.random(60)
    p = np.stack([normal, covid, 1 - covid - normal], 1).astype(np.float32)
    answers = predictions.of_run(tmp_path)._replace(probability=p)
    predictions.write(tmp_path / 'predictions.csv', answers)
    metrics = evaluate.all_metrics(answers, 0.95)
    finish(tmp_path, config={**CONFIG, 'data.classes': list(THREE)}, metrics=metrics, learnt=exams)
    files.write(tmp_path / 'metrics.json', json.dumps(metrics))
    found = write(tmp_path)['results']
    threshold = metrics['test']['all']['threshold_frozen']['value']
    counts = np.zeros((3, 3), int)
    for i in range(30, 60):
        counts[i % 3, 1 if p[i, 1] >= threshold else 2 * int(p[i, 2] > p[i, 0])] += 1
    most_probable = np.bincount(3 * (np.arange(30, 60) % 3) + p[30:].argmax(1), minlength=9).reshape(3, 3)
    assert found['confusion']['counts'] == counts.tolist() != most_probable.tolist()
    assert found['mistakes']['number'] == 30 - round(30 * metrics['test']['all']['accuracy_frozen']['value'])
    assert all(of['asked'] == of['decided'] != of['label'] for of in found['mistakes']['surest'])
    told = page(tmp_path).text
    assert ''.join(f'{name}{"".join(map(str, row))}' for name, row in zip(THREE, counts, strict=True)) in told
    assert counts.tolist() != counts.T.tolist()
    assert f'Decisions on test, at the threshold {threshold:.3f}' in told and 'the most probable of the others is decided for' in told


def test_without_a_threshold_the_most_probable_is_decided_for_and_said(folder, write):
    (folder / 'metrics.json').unlink()
    found = write(folder)
    rows = predictions.of_run(folder).of('test')
    assert found['results']['mistakes']['number'] == int(((rows.probability[:, 1] >= 0.5) != rows.label).sum())
    told = page(folder).text
    assert 'Decisions on test, as most probable: no threshold is frozen' in told and 'Nothing is scored' in told


def test_every_number_has_its_interval_and_n(folder, write):
    found = write(folder)
    told = page(folder).text
    of_test = found['results']['internal']
    for name in ('precision', 'precision_frozen', 'auc', 'sensitivity_frozen'):
        entry = of_test[name]
        assert f'{entry["value"]:.3f}{entry["low"]:.3f} to {entry["high"]:.3f}{entry["n"]}' in told, name
    tile = of_test['sensitivity_frozen']
    assert f'sensitivity{tile["value"]:.3f}{tile["low"]:.3f} to {tile["high"]:.3f}, n = 20' in told and tile['value'] != of_test['sensitivity']['value']
    assert 'no diagnosis, triage or treatment may rest on its answers' in told
    assert of_test['precision']['n'] != of_test['precision_frozen']['n']
    auc = of_test['auc']
    assert found['study']['summary']['result'] == f'AUC {auc["value"]:.3f} ({auc["low"]:.3f} to {auc["high"]:.3f}) on test, n = 40'
    assert 'border0.5000.300 to 0.70040' in told and 'The temperature 1.50 was fitted on 40 validation exams.' in told
    bergen = found['robustness']['sites']['bergen']['sensitivity_frozen']
    assert f'{bergen["value"]:.3f} ({bergen["low"]:.3f} to {bergen["high"]:.3f}, n = 10)' in told


def test_calibration_is_told_before_and_after(folder, write):
    entry = {'low': None, 'high': None, 'n': 40, 'reason': 'no interval: few'}
    heat = {'value': 2.0, 'n': 40, 'note': 'at a bound'}
    files.write(folder / 'calibration.json', json.dumps({'test': {'temperature': heat, 'before': {'ece': {'value': 0.25, **entry}},
                                                                  'after': {'ece': {'value': 0.125, **entry, 'note': 'fitted here'}}}}))
    write(folder)
    told = page(folder).text
    assert 'ECE0.250400.12540' in told and 'no interval: few' in told and 'fitted here' in told
    assert 'The temperature 2.00 was fitted on 40 validation exams (at a bound).' in told
    files.write(folder / 'calibration.json', json.dumps({'test': {'temperature': {'value': None, 'n': 0, 'reason': 'undefined: no val'}, 'before': {}}}))
    assert write(folder)['checklists']['TRIPOD+AI']['12f'] == checklists.AUTHOR
    assert 'No temperature is fitted: undefined: no val.' in page(folder).text


def test_a_run_that_answers_nothing_claims_no_answers(folder, write):
    """A pretraining: its config names classes, and it tells none."""
    for name in ('predictions.csv', 'metrics.json', 'calibration.json', 'shortcuts.json', 'looks.npz'):
        (folder / name).unlink()
    config(folder, method='moco', eval__select='last')
    found = write(folder)
    told = page(folder).text
    assert found['study']['title'] == 'Learning from chest images by deep learning (moco, ResNet14Small)'
    assert (found['study']['goal'], found['model']['output'], found['evaluation']['kept']) == ('a model is made', '', '')
    assert found['training']['selection'] == 'the last checkpoint: nothing is chosen'
    config(folder, eval__select='auto')
    assert record.read(folder)['training']['selection'] == 'the checkpoint that is best on validation by the lowest loss'
    assert 'predictions.csv' not in found['availability'] and not any('intervals' in limit for limit in found['limits'])
    for words in ('Nothing is scored', 'no map is made', 'No exam that was answered has a label', 'no temperature is known'):
        assert words in told, words
    assert '29how uncertain the measures arethe author must say' in told and '7where the data come fromdata.source' in told
    assert {'2', '28', '29', '30', '31', '32', '37', '38', '39'} <= {number for number, field in found['checklists']['CLAIM 2024'].items()
                                                                     if field == checklists.AUTHOR}


@pytest.mark.parametrize(('select', 'best'), [('auto', 'macro F1'), ('auc', 'auc'), ('last', '')])
def test_how_the_checkpoint_was_chosen(folder, select, best):
    config(folder, eval__select=select)
    told = record.read(folder)['training']['selection']
    assert told == (f'the checkpoint that is best on validation by {best}' if best else 'the last checkpoint: nothing is chosen')
    exams_csv(folder, lambda row: {**row, 'split': 'train' if row['split'] == 'val' else row['split']})
    assert record.read(folder)['training']['selection'] == 'the last checkpoint: nothing is chosen'


def test_an_ensemble_has_the_probes_beside_it_and_claims_no_data(folder, write):
    """It has no training, no exams of its own and no shortcuts.json."""
    answers = predictions.of_run(folder)
    for name in ('exams.csv', 'shortcuts.json', 'looks.npz', 'network.txt', 'metrics.jsonl'):
        (folder / name).unlink()
    files.write(folder / 'config.json', json.dumps({'kind': 'ensemble', 'seed': 0, 'ensemble': {'runs': '../a,../b'}, 'eval': {'level': 0.95},
                                                    'data': {'classes': ['noncovid', 'covid']}}))
    evidence.leave(folder, {'border': answers, 'nearest neighbours': answers})
    found = write(folder)
    assert set(found['robustness']['shortcuts']['test']) == {'border'}
    assert found['robustness']['shortcuts']['test']['border']['auc']['value'] == pytest.approx(found['results']['internal']['auc']['value'])
    assert found['study']['title'] == 'Telling covid from noncovid by deep learning (the mean of several runs)'
    assert found['study']['goal'] == 'a part of the kind ensemble is made of finished runs, and tested on their exams'
    assert (found['training']['ensemble'], found['training']['selection'], found['study']['design']) == ('the mean of 2 runs', '', '')
    assert 'checkpoints' not in found['availability'] and 'source' not in found['availability']
    assert 'has its data in them' in page(folder).text
    evidence.leave(folder, {}, ('no probe: one class',))
    (folder / 'evidence/border.csv').unlink()
    assert record.read(folder)['robustness']['shortcuts'] == {'reason': 'no probe: one class'} and claim(folder, '30') == checklists.AUTHOR
    write(folder)
    assert 'no probe: one class' in page(folder).text


def test_probes_of_another_split_alone_are_not_shown_as_none_of_worth(folder, write):
    files.write(folder / 'shortcuts.json', json.dumps({'val': {'border': {'auc': {'value': 0.5, 'n': 4}}}}))
    write(folder)
    assert 'knows no probes of this split' in page(folder).text


def test_an_article_that_the_source_tears_is_in_two_splits(folder, write):
    """COVID-CT's own lists do so: each half is a patient of its own, and no less one article."""
    of = {'oslo/0': 'x (val)', 'oslo/20': 'x (test)'}
    exams_csv(folder, lambda row: {**row, 'patient': of.get(row['id'], row['patient']), 'split': 'val' if row['id'] == 'oslo/0' else row['split']})
    (row,) = [row for row in record.lineage.read(folder) if row.exam.patient == 'x (test)']
    assert row.exam.split == 'test'
    splits = write(folder)['splits']
    assert splits['patients_in_two'] == 1 and 'patients' not in splits['disjoint']
    (bad,) = [attributes for attributes in Parsed((folder / 'report.html').read_text()).of('p') if attributes.get('class') == 'bad']
    assert '1 patient is in more than one split' in page(folder).text


def test_a_source_without_sites_is_not_called_one_site(tmp_path):
    for site, said in (('default', {}), ('oslo', 'all exams are of one site, as their source names it')):
        exams = [Exam(f'e{i}', f'e{i}', site, ('noncovid', 'covid')[i % 2], ('val', 'test')[i // 8], '') for i in range(16)]
        leave(tmp_path, exams, np.linspace(0, 1, 16), ('noncovid', 'covid'))
        metrics = evaluate.all_metrics(predictions.of_run(tmp_path))
        finish(tmp_path, config=CONFIG, metrics=metrics, learnt=exams)
        files.write(tmp_path / 'metrics.json', json.dumps(metrics))
        found = record.read(tmp_path)
        assert found['robustness']['sites'] == said
        assert (found['checklists']['TRIPOD+AI']['12d'] == checklists.AUTHOR) == (not said)
        assert found['evaluation']['uncertainty'] == ''  # these metrics have no intervals


def test_exams_that_an_earlier_run_learnt_from_are_counted_and_measure_nothing(folder, write):
    answers = predictions.of_run(folder)
    seen = np.array([i < 50 for i in range(80)], np.float32)
    predictions.write(folder / 'predictions.csv', answers._replace(columns={'seen': seen}))
    files.write(folder / 'metrics.json', json.dumps(evaluate.all_metrics(predictions.of_run(folder), 0.95)))
    config(folder, allow_leak=True)
    found = write(folder)
    assert 'auc' in found['evaluation']['measures'] and 'seen_before' not in found['evaluation']['measures']
    assert '50 answered exams are of patients that an earlier run learnt from' in found['limits'] and found['splits']['leak_allowed']
    assert any(limit.startswith('patients of val or test may be') for limit in found['limits'])
    told = page(folder).text
    assert 'Patients of earlier runs were allowed in validation and test.' in told and 'these numbers are no test of new patients' in told


def test_exams_of_earlier_runs_are_not_the_runs_own(folder, write):
    lines = (folder / 'exams.csv').read_text().splitlines()
    names = lines[0].split(',')
    more = [dict(zip(names, lines[1].split(','), strict=True)) | {'id': f'b{i}', 'split': 'train', 'run': f'../{run}'} for i, run in enumerate('aab')]
    files.write(folder / 'exams.csv', '\n'.join([*lines, *(','.join(row.values()) for row in more)]) + '\n')
    found = write(folder)
    assert found['data']['flow']['listed'] == 81 and found['splits']['earlier_runs'] == 2 and found['splits']['patients_in_two'] == 0
    assert found['data']['patients'] == {'train': 1, 'val': 40, 'test': 40}
    assert 'It builds on 2 earlier runs' in page(folder).text


@pytest.mark.parametrize(('fields', 'rule'), [
    ({'folds': 2, 'fold': 1}, 'fold 1 of 2, drawn over patients'), ({'data__source': 'folder', 'data__split': 'drawn'}, 'drawn over patients'),
    ({}, 'made for its split, each exam a patient of its own'), ({'data__source': 'folder', 'data__split': 'source'}, 'as the source has it'),
    ({'data__source': 'folder'}, 'as the source has it, else drawn over patients')])
def test_how_exams_came_into_their_splits(folder, fields, rule):
    config(folder, **fields)
    assert record.read(folder)['splits']['assignment'].startswith(f'{rule}: ')


def test_what_is_in_no_split_is_in_no_share_and_no_leak(folder):
    exams_csv(folder, lambda row: {**row, 'split': '' if row['id'] == 'a' else row['split'],
                                   'patient': 'oslo/0' if row['id'] in ('a', 'oslo/1') else row['patient']})
    found = record.read(folder)
    assert found['splits']['patients_in_two'] == 0 and found['splits']['assignment'].endswith('50 % val, 50 % test')
    assert found['data']['flow'] == {'listed': 81, 'not_read': 0, 'val': 40, 'test': 40, 'left out': 1, 'patients': 79}
    assert found['data']['patients'] == {'val': 39, 'test': 40, '': 1}


def test_a_report_that_says_nothing_answers_nothing():
    assert checklists.count({}) == {'CLAIM 2024': (0, 44), 'TRIPOD+AI': (0, 52), 'STARD-AI': (0, 48), 'model card': (0, 9)}


def test_the_level_of_the_bands_is_the_runs(folder, write):
    config(folder, eval__level=0.8)
    found = write(folder)
    assert found['results']['level'] == 0.8 and found['evaluation']['uncertainty'].startswith('intervals of 80 %')


def test_a_mistake_is_told_with_what_was_answered(folder):
    of_exam = {exam.id: p for exam, p in zip(predictions.of_run(folder).exams, predictions.of_run(folder).probability, strict=True)}
    listed = record.read(folder)['results']['mistakes']['surest']
    assert listed and all(of['asked'] == 'covid' and of['probability'] == pytest.approx(of_exam[of['id']][1], abs=1e-4) for of in listed)
    sure = [abs(2 * of['probability'] - 1) if (of['probability'] >= 0.5) == (of['decided'] == 'covid') else -1 for of in listed]
    assert sure == sorted(sure, reverse=True)


def test_maps_are_claimed_where_there_is_one(folder, write):
    assert claim(folder, '31') == 'explanations.method'
    looks.keep(folder, [])
    write(folder)
    assert claim(folder, '31') == checklists.AUTHOR and 'has none of the exams' in page(folder).text


def test_what_is_left_out_of_the_data_is_said(folder, write):
    reasons = [(f'bad{i}.dcm', f'/home/anna/data/bad{i}.dcm: it holds: nothing') for i in range(12)]
    files.write_csv(folder / 'quarantine.csv', [('id', 'reason'), *reasons])
    exams_csv(folder, lambda row: {**row, 'label': '' if row['id'] == 'oslo/0' else row['label']})
    config(folder, data__source='folder', data__negatives__count=0.25, data__imbalance=3.0)
    found = write(folder)
    told = page(folder).text
    assert found['data']['missing']['reasons'][0] == 'bad0.dcm: it holds: nothing' and 'anna' not in told
    assert '12 of 93 were not read, 1 have no label' in told and 'and 2 more' in told
    assert 'a label of the classes, or none' in found['data']['eligibility']
    assert found['splits']['balance'].startswith('patients with the positive class are left out, to 3 exams of other classes for one, 25 % of the exams')


def test_the_page_lists_as_many_mistakes_as_it_says(tmp_path, write):
    exams = [Exam(f'e{i}', f'e{i}', 'oslo', ('noncovid', 'covid')[i % 2], 'test', '') for i in range(60)]
    leave(tmp_path, exams, np.arange(60) % 2 * -0.8 + 0.9, ('noncovid', 'covid'))
    finish(tmp_path, config=CONFIG, learnt=exams)
    found = write(tmp_path)['results']['mistakes']
    assert (found['number'], len(found['surest'])) == (60, record.MISTAKES)
    assert '60 of 60 exams of test are decided wrongly; the 20 surest of them.' in page(tmp_path).text


def test_the_config_is_told_without_paths_and_the_network_with_its_size(folder, write):
    config(folder, data__root='../../home/anna/data', init_from='../../home/anna/run')
    found = write(folder)
    assert found['model']['parameters'] == 1234 and found['model']['start'] == 'from run' and '1,234' in page(folder).text
    assert 'anna' not in (folder / 'report.json').read_text() + (folder / 'report.html').read_text()


def test_a_network_that_knows_the_site_is_said_to(folder):
    assert 'site' not in record.read(folder)['model']['input']
    config(folder, model__sites=3)
    assert 'its site, of which it has 3 sets' in record.read(folder)['model']['input']


def test_a_run_that_is_tested_elsewhere_says_so(folder):
    assert record.read(folder)['study']['goal'].endswith('tested on exams of the same source')
    config(folder, data__held_out_sites=['bergen'])
    assert record.read(folder)['study']['goal'].endswith('tested on exams of sites that are held out')


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'3', b'{"test": 3}', b'{"test": {"all": {"auc": 3}}}', b'{"test": {"all": {"auc": {"value": NaN}}}}',
                                     b'{"test": {"all": {"auc": {"value": "0.9"}}}}', b'\xff', b'[' * 100000])
@pytest.mark.parametrize('name', ['metrics.json', 'calibration.json', 'shortcuts.json'])
def test_damaged_metrics_are_one_line(folder, write, name, content):
    files.write(folder / name, content)
    with pytest.raises(UserError, match=rf'{name}.* it is damaged|{name} is damaged'):
        write(folder)


@pytest.mark.parametrize(('name', 'content'), [
    ('looks.npz', b'PK'), ('looks.npz', b''), ('network.txt', b'\xff'), ('quarantine.csv', b''), ('quarantine.csv', b'\xff'),
    ('quarantine.csv', b'id,reason\na\n'), ('exams.csv', b''), ('exams.csv', b'id,patient\n'), ('predictions.csv', b''), ('config.json', b'{'),
    ('predictions.csv', b'id,patient,site,split,label,p_noncovid,p_covid\na,a,oslo,test,covid,nan,nan\n'),
    ('predictions.csv', b'id,patient,site,split,label,p_noncovid,p_covid\na,a,oslo,test,covid,0.5'), ('store/x/table.json', b'{'),
    ('store/x/table.json', b'{"ids": ["a"], "seen": [3]}')])
def test_a_damaged_file_is_named(folder, write, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        write(folder)


def test_maps_that_do_not_fit_their_scan_are_damage(folder):
    (look,) = looks.read(folder)
    for other in (look._replace(heat=look.heat[1:]), look._replace(slices=look.slices[1:]), look._replace(image=look.image[..., 0])):
        looks.keep(folder, [other])
        with pytest.raises(UserError, match='do not fit'):
            looks.read(folder)


@pytest.mark.parametrize('line', ['{"step": 0, ', '3', '{"loss": 1}', '{"step": "a"}', '{"step": 0, "loss": {}}', ''])
def test_a_damaged_line_of_training_is_named(folder, line):
    files.write(folder / 'metrics.jsonl', f'{{"step": 0, "loss": 1.0}}\n{line}\n')
    with pytest.raises(UserError, match=r'metrics\.jsonl: line 2 is damaged'):
        curves.training_rows(folder)


def test_a_line_that_is_cut_off_and_a_loss_that_is_no_number_are_no_damage(folder):
    files.write(folder / 'metrics.jsonl', '{"step": 0, "loss": NaN}\n{"step": 1, "loss": 1}\n{"st')
    rows = curves.training_rows(folder)
    assert [row['step'] for row in rows] == [0, 1] and curves.training_figure(rows) is not None


def test_a_config_with_numbers_that_json_does_not_know_is_told(folder, write):
    config(folder, train__clip=float('inf'))
    assert write(folder)['training']['config']['train.clip'] == 'inf'
    json.loads((folder / 'report.json').read_text(), parse_constant=pytest.fail)


def test_a_missing_file_is_never_a_claim(folder, write):
    """Whichever file an older version did not write: nothing fails, and no item is answered by what is not there."""
    whole = record.read(folder)['checklists']['CLAIM 2024']
    lost = {'exams.csv': {'8', '12', '19', '20', '35'}, 'metrics.json': {'2', '29', '32', '37', '38'}, 'predictions.csv': {'32', '38', '39'},
            'shortcuts.json': {'30'}, 'network.txt': {'22', '24'}, 'looks.npz': {'31'}, 'metrics.jsonl': set(), 'calibration.json': set()}
    for name, expected in lost.items():
        shutil.move(folder / name, folder / 'away')
        found = write(folder)['checklists']['CLAIM 2024']
        page(folder)
        assert expected <= {number for number in whole if found[number] == checklists.AUTHOR != whole[number]}, name
        shutil.move(folder / 'away', folder / name)


def test_units_are_those_of_the_store_that_has_all_exams(folder):
    exams = [row.exam for row in record.lineage.read(folder)]
    (folder / 'store/x').mkdir(parents=True)
    seen = [[[1, 2, 2], None, i < 5, 0, 1] for i in range(len(exams))]
    files.write(folder / 'store/x/table.json', json.dumps({'ids': [exam.id for exam in exams], 'seen': seen}))
    assert data_card.units(folder, {}, exams) == {'Hounsfield units': 5, 'grey values': len(exams) - 5}
    files.write(folder / 'store/x/table.json', json.dumps({'ids': [exam.id for exam in exams[1:]], 'seen': seen[1:]}))
    assert data_card.units(folder, {}, exams) == {}
