"""The probe on finished runs of a tiny network, through the real experiment."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, small_config
from ml_collections import ConfigDict
from PIL import Image
from sklearn.metrics import roc_auc_score

from covid_jax import UserError, evaluate, experiment, flags, probe, stages, start, trunk
from covid_jax.data import lineage
from covid_jax.predictions import of_run
from covid_jax.report import evidence
from covid_jax.sources.exams import Exam

KINDS = {evidence.SELF, 'nearest neighbours', 'random trunk', 'no lungs', 'thumbnail', 'border', 'file'}


def place(folder, i):
    """Where scan i of a folder lies, without a suffix: every second is covid."""
    path = folder / ('covid' if i % 2 else 'normal') / str(i)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def images(folder, seed, n=40, grey=(0, 255)):
    """A folder of noise: n images, half of each class."""
    for i in range(n):
        noise = np.random.default_rng([seed, i]).integers(*grey, (20, 20), np.uint8)
        Image.fromarray(noise).save(place(folder, i).with_suffix('.png'))
    return str(folder)


def chest(seed, lungs=True):
    """Hounsfield units [24, 64, 64] of a body with or without two lungs, and noise."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu = np.where((x / 0.9)**2 + (y / 0.7)**2 < 1, 40, -1000)
    for side in (-0.4, 0.4) if lungs else ():
        hu = np.where(((x - side) / 0.3)**2 + (y / 0.5)**2 < 1, -800, hu)
    return (hu + np.random.default_rng(seed).integers(-20, 20, (24, 64, 64))).astype(np.int16)


def of_images(c, root):
    with c.unlocked():
        c.prep.size = (1, 16, 16)
        c.data.update(source='folder', root=root)
        c.train.epochs = 1.0
        c.eval.tta = 0
    return c


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A finished run of a tiny network on images, whose answers are means over three views."""
    folder = tmp_path_factory.mktemp('trained')
    c = of_images(small_config(), images(folder / 'data', 0))
    c.eval.tta = 3
    experiment.run(c, folder / 'run')
    return folder / 'run'


def config_of(run, **data):
    c = flags.load(str(ROOT / 'configs' / 'probe.py'))
    c.init_from = str(run)
    c.data.workers = 1
    c.data.update(data)
    return c


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file() and 'store' not in p.parts}


def test_a_run_on_its_own_data(trained, tmp_path, capsys):
    """The run's folder is as it was, byte for byte: its checkpoints too. What it answers is what it had answered. The same
    command again changes nothing."""
    before = contents(trained)
    metrics = experiment.run(config_of(trained), tmp_path / 'probed')['.']
    assert contents(trained) == before and any('checkpoints' in path.parts for path in before)
    answers, notes = evidence.read(tmp_path / 'probed')
    assert {*answers} == KINDS and any('central 70 % blacked in 40 scans, and' in note for note in notes)
    own = of_run(trained)
    for table in (of_run(tmp_path / 'probed'), *answers.values()):
        assert [(e.id, e.split, e.label) for e in table.exams] == [(e.id, e.split, e.label) for e in own.exams]
    np.testing.assert_array_equal(answers[evidence.SELF].probability, own.probability)
    assert np.abs(answers['no lungs'].probability - of_run(tmp_path / 'probed').probability).max() > 0.01  # of other features
    table = json.loads((tmp_path / 'probed' / 'probes.json').read_text())
    assert {*table['test']} == {'linear probe', *KINDS} and table['site']['value'] is None
    assert table['test']['linear probe']['auc']['value'] == pytest.approx(metrics['test']['all']['auc']['value'])
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'what simpler evidence reaches: test' in printed and 'random trunk' in printed
    assert 'the site from the features: -, for there is one site alone' in printed
    assert 'no lungs: central' in (tmp_path / 'probed' / 'results.md').read_text()
    first = contents(tmp_path / 'probed')
    experiment.run(config_of(trained), tmp_path / 'probed')
    assert contents(tmp_path / 'probed') == first


def test_other_data_of_two_sites(trained, tmp_path):
    """Dark and bright ones, which are told apart. The run answers those of test as it does where they are asked about alone."""
    roots = [images(tmp_path / site, seed, grey=grey) for seed, site, grey in ((1, 'oslo', (0, 100)), (2, 'rome', (150, 250)))]
    experiment.run(config_of(trained, source='folder,folder', root=','.join(roots)), tmp_path / 'other')
    answers, _ = evidence.read(tmp_path / 'other')
    site = json.loads((tmp_path / 'other' / 'probes.json').read_text())['site']
    assert site['chance'] == 0.5 and site['n'] == 16 and 0.9 < site['value'] <= site['high'] and site['low'] > 0.5
    rows = answers[evidence.SELF].of('test')
    assert len(rows.exams) == 16
    for exam in rows.exams:
        (tmp_path / 'test' / exam.id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / exam.id, tmp_path / 'test' / exam.id)
    asked, _ = evaluate.on(start.load(trained), 'folder,folder', ','.join(str(tmp_path / 'test' / site) for site in ('oslo', 'rome')),
                           store=tmp_path / 'store')
    assert [e.id for e in asked.exams] == [e.id for e in rows.exams]
    np.testing.assert_allclose(rows.probability, asked.probability, atol=2e-6)


def test_volumes_and_images_and_scans_whose_lungs_are_not_found(trained, tmp_path):
    """12 volumes of one slice now, 16 images, and 8 volumes without lungs, whose answer is the share of covid in train."""
    images(tmp_path / 'data', 4, 16)
    for i in range(20):
        np.savez(place(tmp_path / 'data', 100 + i).with_suffix('.npz'), hu=chest(i, lungs=i < 12))
    experiment.run(config_of(trained, source='folder', root=str(tmp_path / 'data')), tmp_path / 'probed')
    answers, notes = evidence.read(tmp_path / 'probed')
    assert notes[0] == ('no lungs: lungs filled with their mean in 12 scans, central 70 % blacked in 16 scans, and a linear probe of the '
                        'same trunk; in 8 of 36 scans none were found')
    learnt = [row.exam.label for row in lineage.read(tmp_path / 'probed') if row.exam.split == 'train' and not row.run]
    share = learnt.count('covid') / len(learnt)
    told = {int(Path(e.id).stem): p for e, p in zip(answers['no lungs'].exams, answers['no lungs'].probability[:, 1], strict=True)}
    without = [p for name, p in told.items() if name >= 112]
    assert without == pytest.approx([share] * len(without), abs=2e-6) and len(without) > 1
    assert not any(abs(p - share) < 1e-6 for name, p in told.items() if name < 112)


def test_other_data_must_not_be_what_was_learnt_from(trained, tmp_path):
    """The very same images, dealt anew."""
    same = config_of(trained, source='folder', root=str(trained.parent / 'data'), split_seed=1)
    with pytest.raises(UserError, match='learnt from or chose its checkpoint on'):
        experiment.run(same, tmp_path / 'same')
    same.allow_leak = True
    metrics = experiment.run(same, tmp_path / 'same')['.']
    assert metrics['test']['all']['seen_before']['value'] > 0


def test_as_a_stage_after_one_that_learns_without_labels(tmp_path, monkeypatch, capsys):
    """In two folds: the table is the linear probes', the evidence is pooled, and the sentence is about both."""
    import dummy

    from covid_jax import methods

    monkeypatch.setitem(methods.METHODS, 'dummy', dummy)
    c = of_images(dummy.two_stages(folds=2), images(tmp_path / 'data', 3))
    with c.unlocked():
        same = {'source': 'folder', 'root': str(tmp_path / 'data')}
        c.pretrain = ConfigDict({'data': same, 'train': {'epochs': 1.0}})
        c.finetune = ConfigDict({'kind': 'probe', 'init_from': 'pretrain', 'data': same})
    results = experiment.run(c, tmp_path / 'run')
    assert list(results) == ['finetune/fold0/seed0', 'finetune/fold1/seed0']
    folds = [tmp_path / 'run' / part for part in results]
    left = [evidence.read(fold)[0] for fold in folds]
    assert all({*answers} == KINDS - {evidence.SELF} for answers in left)
    left = [answers | {evidence.LINEAR: of_run(fold)} for fold, answers in zip(folds, left, strict=True)]
    lines = (tmp_path / 'run' / 'results.md').read_text().splitlines()
    _, table = (tmp_path / 'run' / 'results.md').read_text().split('## what simpler evidence reaches')
    shown = dict(line.strip('| ').split(' | ')[:2] for line in table.splitlines() if line.startswith('| '))
    for kind in (evidence.LINEAR, 'random trunk', 'border'):
        tested = [answers[kind].of('test') for answers in left]
        auc = roc_auc_score(np.concatenate([p.label for p in tested]), np.concatenate([p.probability[:, 1] for p in tested]))
        assert sum(len(p.exams) for p in tested) == 40 and float(shown[kind]) == pytest.approx(auc, abs=6e-4)
    assert 'of linear probe is' in ' '.join(capsys.readouterr().out.split())
    assert '- no lungs: central 70 % blacked in 40 scans, and a linear probe of the same trunk' in lines
    assert [Path(row.run).parts[-3:] for row in lineage.read(folds[1]) if row.run][0] == ('pretrain', 'fold1', 'seed0')


def test_the_run_s_own_scans_are_known_by_their_content():
    """Not by their names alone; what is in train does not matter."""
    exams = [Exam(str(i), str(i), 'here', 'covid', split, '') for i, split in enumerate(('train', 'val', 'test'))]
    table = lineage.own(exams, ['a', 'b', 'c'])

    def known(*hashes, exams=exams, table=table):
        return probe._are_own(SimpleNamespace(exams=exams, hashes=hashes), table)

    assert known('a', 'b', 'c') and known('x', 'b', 'c')
    assert not known('a', 'b', 'x') and not known('a', 'b', 'c', exams=[e._replace(split='test') for e in exams])
    assert not known('a', 'b', 'c', table=lineage.inherited(table, 'before'))


def test_folds_and_seeds_of_a_run_are_found():
    c = config_of('w/run')
    c.folds, c.seeds = 2, 2
    assert [part.config.init_from for part in stages.parts(c, 'p')] == [f'w/run/fold{f}/seed{s}' for f in (0, 1) for s in (0, 1)]
    c.folds, c.seeds = 1, 1
    assert [part.config.init_from for part in stages.parts(c, 'p')] == ['w/run']


def test_data_of_one_class_are_no_probe(trained, tmp_path):
    for i in range(0, 20, 2):
        Image.fromarray(np.full((20, 20), i, np.uint8)).save(place(tmp_path / 'data', i).with_suffix('.png'))
    with pytest.raises(UserError, match='cannot be probed: of the exams to learn from fewer than two classes are labelled'):
        experiment.run(config_of(trained, source='folder', root=str(tmp_path / 'data')), tmp_path / 'probed')
    assert not (tmp_path / 'probed' / 'config.json').exists()


def test_what_cannot_be_probed(tmp_path):
    with pytest.raises(UserError, match='whose features are to be read'):
        experiment.run(config_of(''), tmp_path / 'a')
    with pytest.raises(UserError, match='holds no run that trained a network'):
        experiment.run(config_of(tmp_path), tmp_path / 'a')
    for field, value in (('split_seed', 1), ('root', 'elsewhere')):
        with pytest.raises(UserError, match=f'--config.data.{field} is of other data than the run\'s own: name them with'):
            experiment.run(config_of(tmp_path, **{field: value}), tmp_path / 'a')
    with pytest.raises(UserError, match="no data source 'phantoms'"):
        experiment.run(config_of(tmp_path, source='phantoms'), tmp_path / 'a')


def test_a_folder_that_is_no_single_run(tmp_path):
    """One that is not there, one that holds the parts of a run, and the folder that the answers would be left in."""
    with pytest.raises(UserError, match='there is no folder .*nowhere: set --config.init_from'):
        experiment.run(config_of(tmp_path / 'nowhere'), tmp_path / 'a')
    part = tmp_path / 'run' / 'fold0' / 'seed0'
    part.mkdir(parents=True)
    (part / 'results.json').write_text('{}')
    with pytest.raises(UserError, match=r'run holds 1 finished parts: set --config.init_from to one of them, as .*fold0/seed0, or'):
        experiment.run(config_of(tmp_path / 'run'), tmp_path / 'a')
    with pytest.raises(UserError, match='is the run whose features are read: set another --workdir'):
        experiment.run(config_of(part), part)


def test_other_data_have_the_classes_of_the_run_where_none_are_set(trained):
    theirs = start.load(trained)[0].config
    three = theirs.copy_and_resolve_references()
    with three.unlocked():
        three.data.classes = ('normal', 'covid', 'pneumonia')
    other = config_of(trained, source='folder', root='elsewhere')
    assert trunk._asked(other, three).data.classes == three.data.classes
    other.data.classes = ('healthy', 'covid')
    assert trunk._asked(other, three).data.classes == ('healthy', 'covid')
