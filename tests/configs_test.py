"""Every row of every config: what the papers' tables say of it, that it builds, and that its step is traced."""

import re
import runpy
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from covid_jax import UserError, papers, stages, start
from covid_jax.methods import METHODS, cmc, cross_site
from covid_jax.methods.method import abstract_batch
from covid_jax.metrics.classification import classification_metrics
from covid_jax.models import network
from covid_jax.runtime import optim, state
from covid_jax.sources.exams import class_index

ROOT = Path(__file__).parents[1]
CMC, CMT, CROSS_SITE, SELF_TRANS, RUBIK = (runpy.run_path(str(ROOT / 'configs' / f'{name}.py'))
                                           for name in ('cmc', 'cmt', 'cross_site', 'self_trans', 'rubik'))
ROWS = [(path.stem, f'{row},size={size}') for path in sorted((ROOT / 'configs').glob('*.py'))
        for row in runpy.run_path(str(path))['ROWS'] for size in ('full', 'small')]
ROWS += [('cmc', f'{row},encoder=authors') for row in ('model1', 'model4', 'model5')]
ROWS += [('cross_site', f'{row},bna=on') for row in ('ours', 'series_adapter')]


def config_of(file, row):
    return runpy.run_path(str(ROOT / 'configs' / f'{file}.py'))['get_config'](row)


def trainings(config):
    """{stage: config} of all that is trained."""
    return {part.stage: part.config for part in stages.parts(config, '/nowhere') if part.config.kind == 'train'}


def begun(config):
    """The run of a config, from random weights where a row names a file that is not here."""
    with config.unlocked():
        config.model.pretrained = ''
    return start.begin(config, '/nowhere')


# One of each method and of the families that they are for; the step of each other network takes up to a minute to trace.
QUICK = {('cmc', 'model4,size=full', ''), ('cmc', 'baseline,size=full', ''), ('cmt', 'ct_vgg19_full_bin,size=full', ''),
         ('cross_site', 'ours,size=full', ''), ('rubik', 'rubik_pro,size=full', ''), ('self_trans', 'rand_effb0,size=full', ''),
         ('self_trans', 'rand_crnet,size=full', ''), ('self_trans', 'method1_r18,size=small', 'covid_ct')}


def test_each_method_is_traced():
    assert {trainings(config_of(file, row))[stage].method for file, row, stage in QUICK} == {*METHODS}


@pytest.mark.parametrize('file, row', [pytest.param(*of, marks=pytest.mark.slow if re.match('fig4.*full', of[1]) else ()) for of in ROWS])
def test_every_row_builds(file, row):
    for part in trainings(config_of(file, row)).values():
        run = begun(part)
        assert run.config.train.batch % run.mesh.size == 0
        assert 0 <= run.config.views.depth <= run.prep.size[0] == run.config.prep.size[0]
        assert run.config.row.startswith(f'{file}:{row.partition(",")[0]},')


def one_of_each_network():
    """The first stage of each network and size, and of each method; of others the tests of the method trace the losses."""
    cases = {}
    for file, row in ROWS:
        for stage, part in trainings(config_of(file, row)).items():
            for key in (part.method, (part.model.name, part.prep.size)):
                cases.setdefault(key, (file, row, stage))
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in sorted({*cases.values()} | QUICK)]


@pytest.mark.parametrize('file, row, stage', one_of_each_network())
def test_the_step_of_every_network_is_traced(file, row, stage):
    """On abstract arrays, at full scale."""
    run = begun(trainings(config_of(file, row))[stage])
    c, method = run.config, run.method
    tx = optim.make(c.train, 10)
    batch, key = abstract_batch(c, c.train.batch), jax.random.key(0)
    train = jax.eval_shape(lambda k, b: state.create(*method.init(k, b), tx), key, batch)
    after, scalars = jax.eval_shape(state.train_step(method, tx), train, batch, key)
    assert jax.tree.structure(after) == jax.tree.structure(train) and scalars['loss'].shape == ()
    answer = jax.eval_shape(method.predict, train.params, train.state, batch, key)
    assert answer['logits'].shape == (c.train.batch, len(run.classes)) if method.labelled else len(answer['features']) == c.train.batch


def parameters(config):
    run = start.begin(config, '/nowhere')
    params = jax.eval_shape(run.method.init, jax.random.key(0), abstract_batch(config, 1))[0]
    return sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize('row, count', [
    ('model1,encoder=authors', 23_505_858 + 4_458_624 + 2),  # their C2D ResNet-50, projection head, two sigmas
    ('model4,encoder=authors', 25_439_042 + 4_458_624 + 2),
])
def test_the_authors_encoders_have_their_numbers_of_parameters(row, count):
    assert parameters(CMC['get_config'](row)) == count


@pytest.mark.parametrize('row, network, slices, clf, con, mix', [
    ('model1', 'ResNet50', 128, True, True, False),
    ('model2', 'ResNeSt50', 64, True, False, True),
    ('model3', 'ResNeSt50', 64, True, True, False),
    ('model4', 'ResNeSt50', 64, True, True, True),
    ('cccii', 'ResNeSt50', 64, True, True, True),
])
def test_rows_of_table_1(row, network, slices, clf, con, mix):
    """And of section 5.1: size, optimiser, epochs."""
    c = CMC['get_config'](row)
    assert (c.model.name, c.views.depth, c.cmc.classification, c.cmc.contrastive, c.cmc.mixup > 0) == (
        network, slices, clf, con, mix)
    assert c.prep.size == (128, 256, 256) and c.cmc.projection == 128
    t = c.train
    assert (t.optimizer, t.epochs, t.lr, t.lr_steps, t.weight_decay) == ('adam', 100, 1e-3, (0.3, 0.8), 1e-5)
    assert c.eval.tta == 0 and c.data.source == ('cc_ccii' if row == 'cccii' else 'cov19_ct_db')


def test_model5_is_made_of_rows():
    parts = trainings(CMC['get_config']('model5'))
    for name, part in parts.items():
        own = CMC['get_config'](name)
        with own.unlocked():
            own.eval.tta = 3  # section 3.4.2
            own.data.store = '/nowhere/store'
            own.row = part.row  # the run's, which is model5's
        assert part.to_json() == own.to_json()
    assert list(parts) == ['model1', 'model3', 'model4']


@pytest.mark.parametrize('config, others', [(CMC, '$'), (CMT, 'fig4|.*sweep|.*_all_'), (CROSS_SITE, '$'),
                                            (SELF_TRANS, '(method|self_trans|frozen|unfrozen|.*lnm).*_(vgg16|r18|d121|eff|crnet)|.*lnm_r50|best')])
def test_the_tables_are_of_rows_that_exist(config, others):
    """And every row but others is in a table; a cell is a number, or nothing."""
    named = {row for table in config['TABLES'] for row in table.rows}
    assert named == {row for row in config['ROWS'] if not re.match(others, row)}
    for table in config['TABLES']:
        for cells in {**table.rows, **table.others}.values():
            assert len(cells) == len(table.columns) and all(re.match(r'\d+(\.\d+)?|$', cell) for cell in cells)


def test_what_the_paper_cannot_have_measured():
    """Of Table 3: the accuracy of CMT-CNN is not between its sensitivity and specificity. All of Table 1 can be: 374 scans."""
    found = [papers.impossible(table) for table in CMC['TABLES']]
    assert found[:2] == [[], []] and len(found[2]) == 1 and found[2][0].startswith('Li et al. (CMT-CNN): accuracy 93.46 %')


def test_every_binary_row_of_cmt_cnn_is_impossible():
    """Its accuracy is not between its sensitivity and its specificity, in all 18 of Tables 1 to 4."""
    found = [sentence.partition(':')[0] for table in CMT['TABLES'][:4] for sentence in papers.impossible(table)]
    assert sorted(found) == sorted(row for row in CMT['ROWS'] if row.endswith('bin') and 'all' not in row)


@pytest.mark.parametrize('row, network, size, batch, weight, latent, classes', [
    ('ct_vgg19_full_bin', 'VGG19', (128, 128, 128), 8, 0.25, 0, 2),
    ('ct_effb4_cls_tern', 'EfficientNetB4', (128, 128, 128), 8, 0.0, 4096, 3),
    ('xray_r50_full_tern', 'ResNet50', (1, 512, 512), 64, 0.25, 4096, 3),
])
def test_rows_of_cmt_cnn(row, network, size, batch, weight, latent, classes):
    """Sections 3.1 and 4.1: min-max to [0, 1], less 0.5; Adam at 1e-3, temperature 0.1, five folds."""
    c = CMT['get_config'](row)
    assert (c.model.name, c.prep.size, c.train.batch, c.cmt.weight, c.cmt.latent) == (network, size, batch, weight, latent)
    assert (c.prep.window, c.model.mean, c.model.std, c.views.name, c.views.ops) == ((), 0.5, 1.0, 'cmt', ())
    t = c.train
    assert (t.optimizer, t.lr, t.schedule, t.weight_decay, c.cmt.temperature, c.folds) == ('adam', 1e-3, 'constant', 0, 0.1, 5)
    assert (t.epochs, t.patience, c.eval.select) == (100, 10, 'auto')
    assert len(c.data.classes) == classes and c.eval.tta == 0 and c.cmt.classified == 'both' and c.cmt.classification


def test_both_tasks_of_cmt_cnn_take_the_same_labels():
    """What is normal or pneumonia in three classes is not COVID in two."""
    binary, ternary = (CMT['get_config'](f'xray_r50_full_{task}').data.classes for task in ('bin', 'tern'))
    for label in '|'.join(ternary).split('|'):
        assert class_index(label, binary) == (class_index(label, ternary) == 1)


def test_stages_of_cmt_cnn():
    """The contrastive loss alone before a probe; lambda chosen by accuracy; each transformation and each ordered pair."""
    config = CMT['get_config']('xray_effb4_cst_tern,size=small')
    contrastive, probe = (part.config for part in stages.parts(config, '/nowhere'))
    assert not contrastive.cmt.classification and probe.kind == 'probe' and probe.init_from == '/nowhere/contrastive'
    three = trainings(CMT['get_config']('ct_r50_all_bin'))
    losses = [(c.cmt.classification, c.cmt.weight) for c in three.values()]
    assert losses == [(True, 0.25), (True, 0.0), (False, 0.25)] and [*three][:2] == ['ct_r50_full_bin', 'ct_r50_cls_bin']
    sweep = CMT['get_config']('ct_sweep')
    assert [c.cmt.weight for c in trainings(sweep).values()] == [0, 0.25, 0.5, 0.75, 1]
    assert (sweep.best.kind, sweep.best.choose.by) == ('choose', 'accuracy')
    fig4 = trainings(CMT['get_config']('fig4_ct,size=small'))
    ops = [c.views.ops for c in fig4.values()]
    assert len(fig4) == 50 and [len(of) for of in ops].count(1) == 7 and len({*ops[1:]}) == 49
    assert fig4['baseline'].cmt.weight == 0 and fig4['baseline'].views.name == 'none'


@pytest.mark.parametrize('row, network, sites, alpha, adapter, teachers', [
    ('ours', 'COVIDNetRedesign', 0, 1.0, '', False), ('sepnorm', 'COVIDNetRedesign', 0, 0.0, '', False),
    ('ms_net', 'COVIDNetRedesign', 0, 0.0, '', True), ('series_adapter', 'COVIDNetRedesign', 0, 0.0, 'series', False),
    ('parallel_adapter', 'COVIDNetRedesign', 0, 0.0, 'parallel', False), ('joint_redesign', 'COVIDNetRedesign', 1, 0.0, '', False),
    ('single_redesign', 'COVIDNetRedesign', 1, 0.0, '', False), ('single_covidnet', 'COVIDNet', 0, 0.0, '', False),
    ('joint_covidnet', 'COVIDNet', 0, 0.0, '', False)])
def test_rows_of_cross_site_learning(row, network, sites, alpha, adapter, teachers):
    """Section III.C, and of the authors' code what it does not say."""
    c = CROSS_SITE['get_config'](row)
    o = c.cross_site
    assert (c.model.name, c.model.sites, o.alpha, o.adapter, o.teachers) == (network, sites, alpha, adapter, teachers)
    assert (o.temperature, o.embedding, o.embedding_relu, o.head_norm, o.p33, o.pool, o.warm_up) == (0.05, (1024, 128), False, False, True,
                                                                                                    0, 500)
    t = c.train
    assert (t.optimizer, t.lr, t.batch, t.epochs, t.clip) == ('adam', 1e-4, 32, 100, 2.0)
    assert t.weight_decay == (0 if row == 'ms_net' else 1e-7)
    assert (t.order, c.data.sites) == ('by_site', ('SARS-CoV-2-CT',) if row.startswith('single') else ())
    assert (c.prep.size, c.prep.keep_aspect, c.views.name, c.views.plane) == ((1, 256, 256), True, 'cross_site', 224)
    assert (c.model.mean, c.model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (c.folds, c.seeds, c.data.split, c.data.group, c.eval.select) == (4, 3, 'drawn', 'clusters', 'auto')
    assert c.data.source == 'sars_cov_2_ct,covid_ct' and (t.schedule == 'cosine') == (network == 'COVIDNetRedesign')


def test_the_original_covid_net_of_cross_site_learning():
    """Its rate is a tenth after each 30 of 100 epochs."""
    c = CROSS_SITE['get_config']('joint_covidnet')
    rate = optim.steps(c.train, 10)
    assert c.train.schedule == 'steps'
    assert [round(1e4 * float(rate(10 * epoch)), 6) for epoch in (0, 29, 31, 59, 61, 89, 91)] == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]


def test_arguments_of_cross_site_learning():
    """One site of two is named by its data; the phantom is of two scanners."""
    get_config = CROSS_SITE['get_config']
    assert get_config('single_redesign,site=b').data.sites == ('COVID-CT',)
    assert get_config('single_redesign,site=b,size=small').data.sites == ('site1',)
    assert get_config('ours,bna=on').cross_site.head_norm
    c = get_config()
    assert c.to_json() == get_config('ours,size=small').to_json()
    assert (c.data.source, c.data.phantom.kind, c.data.phantom.sites, c.train.order) == ('phantom', 'slice', 2, 'by_site')


def test_what_cross_site_learning_cannot_have_measured():
    """The harmonic mean of recall and precision is concave: no mean of F1 is above that of their means, as 10 of 18 are."""
    found = [{sentence.partition(':')[0] for sentence in papers.impossible(table)} for table in CROSS_SITE['TABLES']]
    both = {'single_covidnet', 'single_redesign', 'joint_covidnet', 'joint_redesign'}
    assert found == [both | {'parallel_adapter', 'ours'}, both]
    for tests in CROSS_SITE['PAIRED_TESTS']:
        assert tests.rows.keys() < set(CROSS_SITE['ROWS']) and tests.ours == 'ours'
        assert all(group in {table.group for table in CROSS_SITE['TABLES']} for row in tests.rows.values() for group in row)


def test_rows_of_self_trans():
    """Sections IV.A and IV.B, and of the authors' code what they do not say."""
    first, second, last = trainings(SELF_TRANS['get_config']('self_trans_d169')).values()
    for c in (first, second):
        m = c.moco
        assert (c.method, m.queue, m.temperature, m.momentum, m.groups, m.projection) == ('moco', 512, 0.07, 0.999, 4, 128)
        t = c.train
        assert (t.batch, t.optimizer, t.momentum, t.lr, t.weight_decay, t.schedule, t.period, t.epochs) == (
            128, 'sgd', 0.9, 0.015, 1e-4, 'cosine', 0, 200)
        assert c.views.name == 'moco' and c.eval.select == 'last'
    t = last.train
    assert (last.method, t.batch, t.optimizer, t.lr, t.schedule, t.period, t.epochs) == ('supervised', 16, 'adam', 1e-4, 'cosine', 10, 50)
    assert (last.views.name, last.eval.select, last.init_skip) == ('self_trans', 'auc', 'classifier')
    for c in (first, second, last):
        assert (c.model.name, c.model.mean, c.model.std) == ('DenseNet169', 0.45271412, 0.33165374)
        assert (c.prep.size, c.views.plane, len(c.data.classes)) == ((1, 256, 256), 224, 2)
    assert (first.data.source, second.data.source, last.data.source) == ('luna16', 'covid_ct', 'covid_ct')
    assert (first.model.pretrained, second.init_from, last.init_from) == ('DenseNet169.pth', '/nowhere/luna', '/nowhere/covid_ct')


def test_the_data_of_self_trans_are_those_of_its_last_two_stages():
    """One source for both, at any size; the first has its own."""
    config = SELF_TRANS['get_config']('self_trans_r18,size=small')
    config.data.update(source='manifest', root='scans.csv', split='drawn')
    of_stage = {stage: (c.data.source, c.data.root, c.data.split) for stage, c in trainings(config).items()}
    mine = 'manifest', 'scans.csv', 'drawn'
    assert of_stage == {'luna': ('phantom', '', 'auto'), 'covid_ct': mine, 'finetune': mine}


@pytest.mark.parametrize('row, stages, pretrained', [
    ('rand_crnet', [''], ''), ('trans_r50', [''], 'ResNet50.pth'), ('method1_r50', ['covid_ct', 'finetune'], ''),
    ('method2_r50', ['covid_ct', 'finetune'], 'ResNet50.pth'), ('method3_d169', ['luna', 'finetune'], 'DenseNet169.pth'),
    ('method4_r50', [''], 'ResNet50.pth'), ('frozen_effb0', ['covid_ct', 'finetune'], 'EfficientNetB0.pth'),
    ('lnm_d169', ['lnm', 'finetune'], ''), ('imagenet_lnm_d169', ['lnm', 'finetune'], 'DenseNet169.pth')])
def test_stages_of_self_trans(row, stages, pretrained):
    parts = trainings(SELF_TRANS['get_config'](row))
    assert [*parts] == stages and [part.model.pretrained for part in parts.values()][0] == pretrained
    last = [*parts.values()][-1].supervised
    assert (last.rotation, last.frozen) == (row.startswith('method4'), row.startswith('frozen'))


@pytest.mark.parametrize('row, masking', [('rubik_pro', True), ('rubik', False)])
def test_rows_of_rubiks_cube(row, masking):
    """Sections III.C and V.A: preprocessing and pretext; epochs are not said."""
    c = RUBIK['get_config'](row)
    t = c.train
    assert (t.optimizer, t.lr, t.batch, t.schedule, t.epochs, t.weight_decay) == ('adam', 1e-3, 8, 'constant', 100, 0)
    assert (c.rubik.masking, c.rubik.gap, c.data.use, c.model.name) == (masking, (2, 10, 10), 'covid', 'ResNet18Hara')
    p = c.prep
    assert (p.size, p.spacing, p.window, p.lungs, p.margin) == ((56, 192, 256), (5, 1, 1), (-1350, 150), 'mask', (5, 9, 9))


@pytest.mark.parametrize('row, named, choice, start, network', [
    ('random_14', [''], (246, 'random', 'joint', ''), '', 'ResNet18Hara'),
    ('dif_28', ['rubik', 'dif_28'], (500, 'long-tail', 'difficulty', '/nowhere/rank'), '', 'ResNet18Hara'),
    ('div_56', ['rubik', 'div_56'], (1000, 'long-tail', 'diversity', '/nowhere/rank'), '', 'ResNet18Hara'),
    ('joint_28', ['rubik', 'joint_28'], (500, 'long-tail', 'joint', '/nowhere/rank'), '', 'ResNet18Hara'),
    ('top_14', ['rubik', 'top_14'], (246, 'top', 'joint', '/nowhere/rank'), '', 'ResNet18Hara'),
    ('normal_14', ['rubik', 'normal_14'], (246, 'normal', 'joint', '/nowhere/rank'), '', 'ResNet18Hara'),
    ('joint_rubik_14', ['rubik', 'joint_rubik_14'], (246, 'long-tail', 'joint', '/nowhere/rank'), '/nowhere/rubik', 'ResNet18Hara'),
    ('joint_rubik_all_56', ['rubik', 'rubik_all', 'joint_rubik_all_56'], (1000, 'long-tail', 'joint', '/nowhere/rank'), '/nowhere/rubik_all',
     'ResNet18Hara'),
    ('r50_56', ['rubik', 'r50_56'], (1000, 'long-tail', 'joint', '/nowhere/rank'), '', 'ResNet50Hara'),
    ('r50_all', [''], (0, 'long-tail', 'joint', ''), '', 'ResNet50Hara'), ('all', [''], (0, 'long-tail', 'joint', ''), '', 'ResNet18Hara'),
    ('all_rubik', ['cube_all', 'all_rubik'], (0, 'long-tail', 'joint', ''), '/nowhere/cube_all', 'ResNet18Hara'),
    ('all_rubik_pro', ['rubik_all', 'all_rubik_pro'], (0, 'long-tail', 'joint', ''), '/nowhere/rubik_all', 'ResNet18Hara')])
def test_rows_of_dual_track_ranking(row, named, choice, start, network):
    """How many of 1785 are learnt from and by which law, what the classifier starts from, and its training (section V.A)."""
    found = trainings(RUBIK['get_config'](row))
    assert [*found] == named
    last = found[named[-1]]
    of = last.data.negatives
    assert (round(1785 * of.count), of.law, of.by, of.ranking) == choice
    assert (last.init_from, last.model.name, last.data.use) == (start, network, 'auto')
    t = last.train
    assert (last.method, t.optimizer, t.lr, t.batch, t.schedule, t.epochs, t.weight_decay) == ('supervised', 'adam', 1e-3, 8, 'constant', 100, 0)
    assert (last.views.name, last.eval.select, last.supervised.loss, t.order) == ('rubik', 'f1_covid', 'cross_entropy', 'shuffle')
    for stage, c in found.items():
        assert c.prep.to_json() == last.prep.to_json()
        if c.method == 'rubik':
            assert (c.model.name, c.data.use, c.rubik.masking) == ('ResNet18Hara', 'covid' if stage == 'rubik' else 'all', stage != 'cube_all')


def test_strategies_of_dual_track_ranking():
    for row in ('all', 'joint_56'):
        of = {way: [*trainings(RUBIK['get_config'](f'{row}_{way}')).values()][-1] for way in ('balanced', 'ohem', 'focal')}
        assert [(c.train.order, c.supervised.loss) for c in of.values()] == [('balanced', 'cross_entropy'), ('shuffle', 'ohem'), ('shuffle', 'focal')]
        assert {round(1785 * c.data.negatives.count) for c in of.values()} == {1000 if row == 'joint_56' else 0}


def test_a_table_of_dual_track_ranking_is_ranked_once():
    """All its cells by one command, of all seeds from one ranking; by default random against joint selection, eight negatives to one."""
    for name, cells in RUBIK['TABLE_ROWS'].items():
        config = RUBIK['get_config'](name)
        config.seeds = 3
        count = Counter(part.stage for part in stages.parts(config, '/nowhere'))
        assert all(count[cell] == 3 for cell in cells) and count['rank'] == (name not in ('table6', 'table7')) + (name == 'table6')
        assert set(count) - {*cells} <= {'rubik', 'rubik_all', 'cube_all', 'rank'} and max(count[stage] for stage in set(count) - {*cells}) == 1
    c = RUBIK['get_config']()
    assert c.stages == ('rubik', 'rank', *(f'{way}_{share}' for way in ('random', 'joint') for share in (14, 28, 56)), 'all')
    assert (c.data.source, round(1 / c.data.phantom.covid)) == ('phantom', 9)


def test_what_dual_track_ranking_cannot_have_measured():
    """Of 50 scans with COVID a recall is a multiple of 2 %: Table IV has 84.8."""
    found = {table.title.partition(':')[0]: papers.impossible(table) for table in RUBIK['TABLES']}
    of_table_4 = found.pop('Table IV')
    assert 'r50_all: no counts of 50 positives and 468 negatives give sensitivity 84.80 %' in of_table_4 and not any(found.values())
    assert {sentence.partition(':')[0] for sentence in of_table_4} == {'r50_all'}


def test_luna_is_learnt_once_for_all_folds_and_seeds():
    config = SELF_TRANS['get_config']('self_trans_r50')
    config.folds = 2
    config.seeds = 3
    count = Counter(part.stage for part in stages.parts(config, '/nowhere'))
    assert count == {'luna': 1, 'covid_ct': 6, 'finetune': 6}


def test_what_self_trans_learns_from_without_labels():
    """The training images alone; all of them where that is asked for, and then the run may start from it all the same, which it says."""
    own = trainings(SELF_TRANS['get_config']('method2_r50'))
    whole = trainings(SELF_TRANS['get_config']('method2_r50,ssl_split=all'))
    assert (own['covid_ct'].data.split, own['covid_ct'].data.val, own['finetune'].allow_leak) == ('auto', 0.2, False)
    asked = whole['covid_ct'].data
    assert (asked.split, asked.val, asked.test, whole['finetune'].allow_leak, whole['finetune'].data.split) == ('drawn', 0, 0, True, 'auto')


def test_the_f1_of_self_trans_is_that_of_its_own_positive_class():
    """A rerun of the paper's best weights: 83 of 105 without COVID and 90 of 98 with it are right. It prints 0.85 and 0.94 AUC."""
    label = np.repeat([0, 1], [105, 98])
    right = np.concatenate([np.arange(105) < 83, np.arange(98) < 90])
    p = np.where(right, label, 1 - label)
    found = classification_metrics(label, np.stack([1 - p, p], 1), ('noncovid', 'covid'))
    assert [round(found[name]['value'], 4) for name in ('accuracy', 'f1_noncovid', 'f1_covid')] == [0.8522, 0.8469, 0.8571]
    assert all(table.columns[1] == 'f1_noncovid' for table in SELF_TRANS['TABLES'])
    assert SELF_TRANS['TABLES'][2].rows['self_trans_d169'] == ('86', '85', '94', '', '')


def test_plain_classification_takes_images_volumes_and_three_classes():
    """By size alone: an image is a volume of one slice."""
    supervised = runpy.run_path(str(ROOT / 'configs' / 'supervised.py'))['get_config']
    depths = {row: supervised(row).prep.size[0] for row in ('ct', 'slice', 'xray')}
    assert depths == {'ct': 64, 'slice': 1, 'xray': 1}
    counts = {row: len(supervised(row).data.classes) for row in ('ct', 'slice', 'xray', 'ct,task=ternary', 'xray,task=binary')}
    assert counts == {'ct': 2, 'slice': 2, 'xray': 3, 'ct,task=ternary': 3, 'xray,task=binary': 2}
    assert supervised().to_json() == supervised('ct,size=small').to_json() and supervised().data.source == 'phantom'


def test_a_field_reaches_every_stage_or_one():
    c = CMC['get_config']('model5')
    c.model.pretrained, c.model1.model.pretrained = 'resnest50.pth', 'resnet50.pth'
    c.data.root, c.model4.data.root, c.model3.train.batch = 'all', 'one', 16
    parts = trainings(c)
    assert [part.model.pretrained for part in parts.values()] == ['resnet50.pth'] + 2 * ['resnest50.pth']
    assert [part.data.root for part in parts.values()] == ['all', 'all', 'one']
    assert [part.train.batch for part in parts.values()] == [0, 16, 0]


def test_the_section_of_the_method_is_what_the_method_declares():
    """configs/cmc.py writes the fields out, so that they are flags before jax is imported."""
    assert CMC['get_config']('model4').cmc.to_dict() == cmc.DEFAULTS
    assert CROSS_SITE['get_config']('ours').cross_site.to_dict() == cross_site.DEFAULTS


def test_the_default_is_model4_small():
    """On the phantom, with the recipe that docs/fidelity.md gives."""
    c = CMC['get_config']()
    assert c.to_json() == CMC['get_config']('model4,size=small').to_json() and c.data.source == 'phantom'
    said = re.search(r'`size=small`.*?: (\d+) epochs of (\d+) scans at (\S+), divided by 10 at (\d+) % and (\d+) %',
                     (ROOT / 'docs' / 'fidelity.md').read_text())
    epochs, batch, lr, *percent = map(float, said.groups())
    assert (c.train.epochs, c.train.lr, [100 * step for step in c.train.lr_steps]) == (epochs, lr, percent)
    assert [start.build(c, '/nowhere', jax.devices()[:n]).config.train.batch for n in (1, 8)] == [batch, 16]


def test_the_baseline():
    c = CMC['get_config']('baseline')
    net = network(c.model.name)(classes=2)
    scan = jax.ShapeDtypeStruct((1, 6, 32, 32, 1), 'float32')
    feature_map = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0][1]['map'], scan)
    assert net.taps == 1 and feature_map.shape[1] == 6  # every slice
    assert (net.summary().units, net.summary().dropout) == (128, 0.2)
    assert c.prep.size == (64, 224, 224) and (c.train.lr, c.train.lr_steps, c.train.weight_decay) == (1e-4, (), 0.0)
    with pytest.raises(UserError, match='authors'):
        CMC['get_config']('baseline,encoder=authors')


def test_cc_ccii_is_split_as_the_paper_says():
    c = CMC['get_config']('cccii')
    assert (c.data.val, c.data.test) == (0.1, 0.1)


@pytest.mark.parametrize('row', ['model4', 'model4,size=small'])
def test_what_the_paper_does_not_give_is_the_authors_codes(row):
    """But for the scale of Eq 2, which is the paper's."""
    c = CMC['get_config'](row)
    assert (c.cmc.temperature, c.cmc.base_temperature, c.cmc.mixup) == (0.1, 0, 0.5)
    assert (c.model.mean, c.model.std) == (0.3529, 0.2983)
