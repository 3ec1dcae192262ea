"""The gap between a result and simpler evidence, of answers made up so that it is known."""

import io

import numpy as np
import pytest
import rich.console
from finished_runs import NAMES, exam
from sklearn.metrics import roc_auc_score

from covid_jax import UserError, evaluate
from covid_jax.predictions import Predictions
from covid_jax.report import evidence


def answers(score, n=80, **change):
    score = np.asarray(score)
    exams = [exam(i)._replace(**change) for i in range(n)]
    label = np.arange(n) % 2
    return Predictions(NAMES, exams, label.astype(np.int32), np.stack([1 - score, score], 1))


def scores(n, shift, seed):
    z = np.random.default_rng(seed).normal(size=n) + shift * (np.arange(n) % 2)
    return 1 / (1 + np.exp(-z))


def test_the_auc_is_that_of_the_metrics_with_their_interval():
    p = answers(np.round(scores(80, 1, 0), 1))  # with ties
    found = evidence.auc(p, 0.9)
    assert found == pytest.approx(evaluate.score(p, level=0.9)['auc'])
    assert found['value'] == pytest.approx(roc_auc_score(p.label, p.probability[:, 1]))


def test_of_seeds_the_mean():
    a, b = (answers(scores(80, 1, seed)) for seed in (0, 1))
    both = a._replace(probability=np.concatenate([a.probability, b.probability], 1))
    assert evidence.auc(both, 0.95)['value'] == pytest.approx(np.mean([evidence.auc(p, 0.95)['value'] for p in (a, b)]))


def test_one_class_has_no_auc():
    p = answers(scores(80, 1, 0))
    entry = evidence.auc(p._replace(label=np.zeros(80, np.int32)), 0.95)
    assert entry['value'] is None and 'no examples of class covid' in entry['reason']


def test_a_clear_gap_is_the_claim():
    found = evidence.gather('the network', answers(scores(200, 4, 0), 200),
                            {'border': answers(scores(200, 0.5, 1), 200), 'file': answers(scores(200, 0, 2), 200),
                             'random trunk': answers(scores(200, 9, 3), 200)}, 0.95)
    assert found.best == 'border'  # a random trunk is no shortcut, though it is shown
    a, b = found.rows['the network']['value'], found.rows['border']['value']
    assert found.gap.value == pytest.approx(a - b) and 0 < found.gap.low < a - b < found.gap.high
    said = evidence.sentence(found)
    assert said.startswith(f'the claim is the gap: AUC {a:.3f} of the network is {a - b:.3f} [{found.gap.low:.3f}, ')
    assert said.endswith(f'above the best probe (border, {b:.3f})')


def test_no_gap_and_less_than_none():
    better = answers(scores(200, 4, 0), 200)
    worse = answers(scores(200, 0.5, 1), 200)
    found = evidence.gather('the network', worse, {'file': better}, 0.95)
    said = evidence.sentence(found)
    assert said.startswith('there is nothing to claim: ') and 'below the best probe (file' in said
    assert f'[{-found.gap.high:.3f}, {-found.gap.low:.3f}]' in said  # how far below, the smaller first
    alike = evidence.gather('the network', answers(scores(200, 1.1, 6), 200), {'file': answers(scores(200, 1.0, 5), 200)}, 0.95)
    assert alike.gap.low < 0 < alike.gap.value
    assert evidence.sentence(alike).startswith('the gap may be none: ') and ' above the best probe (file' in evidence.sentence(alike)
    same = evidence.gather('the network', worse, {'file': worse}, 0.95)
    value = same.rows['file']['value']
    assert evidence.sentence(same) == (f'there is nothing to claim: AUC {value:.3f} of the network is that of the best probe (file, '
                                       f'{value:.3f})')


def test_few_patients_have_a_gap_without_an_interval():
    found = evidence.gather('the network', answers(scores(12, 4, 0), 12), {'file': answers(scores(12, 0, 1), 12)}, 0.95)
    assert found.gap.low is None and '10 needed' in evidence.sentence(found)


def test_without_simpler_evidence_and_without_labels():
    p = answers(scores(80, 1, 0))
    assert evidence.sentence(evidence.gather('the network', p, {}, 0.95)).startswith('no gap: there is no simpler evidence')
    assert evidence.gather('the network', p._replace(label=np.full(80, -1, np.int32)), {}, 0.95) is None


def test_other_exams_are_refused():
    with pytest.raises(UserError, match='did not answer the same exams'):
        evidence.gather('the network', answers(scores(80, 1, 0)), {'file': answers(scores(78, 1, 0), 78)}, 0.95)


def test_what_is_left_is_read_and_shown(tmp_path):
    p = answers(scores(80, 1, 0))
    evidence.leave(tmp_path, {'no lungs': p, 'file': p}, ('first\x1b[2J', 'second'))
    found, notes = evidence.read(tmp_path)
    assert list(found) == ['no lungs', 'file'] and notes[1] == 'second' and '\x1b' not in notes[0]
    np.testing.assert_allclose(found['file'].probability, p.probability, atol=1e-6)
    gathered = evidence.gather('the network', answers(scores(80, 1, 3)).labelled(), {'file': p}, 0.9, ('a note',))
    console = rich.console.Console(file=io.StringIO(), width=100)
    for line in evidence.lines(gathered):
        console.print(line)
    text = ' '.join(console.file.getvalue().split())
    value = f'{gathered.rows["file"]["value"]:.3f}'
    for shown in (text, evidence.markdown(gathered)):
        assert 'test, AUC of covid' in shown and '90 % interval' in shown and value in shown and 'a note' in shown


def of_sites(shares, size=60, seed=0):
    """{kind: made-up answers} of so many exams at each site, whose share of covid is given: the network tells the sites apart and
    something more, the file the sites alone, the border nothing."""
    rng = np.random.default_rng(seed)
    exams = []
    told = {'the network': [], 'file': [], 'border': [], 'site': []}
    for site, share in shares.items():
        for i in range(size):
            positive = i < round(share * size)
            exams.append(exam(int(positive))._replace(id=f'{site}{i}', patient=f'{site}{i}', site=site))
            told['the network'].append(4 * share + 1.2 * positive + rng.normal())
            told['file'].append(4 * share + 0.1 * rng.normal())
            told['border'].append(rng.normal())
            told['site'].append(share)
    label = np.array([NAMES.index(e.label) for e in exams], np.int32)
    scores_of = {kind: 1 / (1 + np.exp(2 - np.array(z))) for kind, z in told.items()}
    return {kind: Predictions(NAMES, exams, label, np.stack([1 - p, p], 1)) for kind, p in scores_of.items()}


def gathered(told, **change):
    network, *others = told
    return evidence.gather(network, told[network], {kind: told[kind] for kind in others}, 0.95, **change)


def test_each_of_several_sites_has_its_own_gap():
    """By the metrics of the site's exams alone; the site itself tells nothing there."""
    told = of_sites({'oslo': 0.2, 'rome': 0.8})
    found = gathered(told)
    assert list(found.sites) == ['oslo', 'rome'] and (found.exams, found.share) == (120, 0.5)
    for site, share in (('oslo', 0.2), ('rome', 0.8)):
        alone = found.sites[site]
        own = {kind: p.of(site=site) for kind, p in told.items()}
        assert list(alone.rows) == ['the network', 'file', 'border'] and alone.sites == {}
        assert (alone.exams, alone.share) == (60, pytest.approx(share))
        for kind in alone.rows:
            assert alone.rows[kind] == pytest.approx(evidence.auc(own[kind], 0.95))
        assert alone.gap.value == pytest.approx(alone.rows['the network']['value'] - alone.rows[alone.best]['value'])
    assert found.rows['site']['value'] == pytest.approx(0.8)  # by hand: 0.64 of the pairs are right, 0.32 are equal


def test_over_all_exams_nothing_is_claimed_where_there_are_sites():
    found = gathered(of_sites({'oslo': 0.2, 'rome': 0.8}), notes=('a note',))
    *of_each, whole, note = evidence.sentences(found)
    assert [line.partition(': ')[2] for line in of_each] == [evidence.sentence(found.sites[site]) for site in ('oslo', 'rome')]
    value = f'{found.rows["the network"]["value"]:.3f}'
    assert whole == (f'all exams: AUC {value}, of which telling the sites apart may be a part (20 % to 80 % of a site are covid, the site '
                     'alone reaches 0.800): the claims are those within the sites')
    assert note == 'a note' and 'the claim is the gap' not in whole
    lines = evidence.markdown(found).splitlines()
    assert lines[2] == '| evidence | oslo | rome | all exams |' and '| exams, covid | 60, 20 % | 60, 80 % | 120, 50 % |' in lines
    entry = found.sites['oslo'].rows['file']
    cell = f'{entry["value"]:.3f} ({entry["low"]:.3f} to {entry["high"]:.3f})'
    (row,) = [line for line in lines if line.startswith('| file |')]
    assert row.split(' | ')[1] == cell
    (row,) = [line for line in lines if line.startswith('| site |')]
    assert row.split(' | ')[1:3] == ['', ''] and row.split(' | ')[3].startswith('0.800 (')
    printed = evidence.lines(found)[2:]
    assert printed == evidence.sentences(found)


@pytest.mark.parametrize('shares, chance', [((0.5, 0.5), True), ((0.45, 0.55), True), ((0.2, 0.8), False)])
def test_telling_sites_apart_is_no_part_where_the_site_reaches_chance(shares, chance):
    """By hand: of 60 exams each with 27 and 33 of covid the interval of the site's AUC, 0.55, holds 0.5."""
    found = gathered(of_sites(dict(zip(('oslo', 'rome'), shares, strict=True))))
    whole = evidence.sentences(found)[2]
    assert ('may be a part' in whole) != chance
    if chance:
        assert whole.startswith(f'all exams: {evidence.sentence(found)}; the site alone reaches') and whole.endswith('no more than chance')


def test_a_site_of_one_class_says_so_and_one_labelled_site_is_none_of_several():
    found = gathered(of_sites({'oslo': 0.5, 'rome': 1.0}))
    assert found.sites['rome'].rows['the network']['value'] is None
    assert evidence.sentence(found.sites['rome']).startswith('no gap: undefined: no examples other than class covid')
    told = of_sites({'oslo': 0.5, 'rome': 0.5})
    one = {kind: p._replace(label=np.where(np.arange(120) < 60, p.label, -1)) for kind, p in told.items()}
    found = gathered(one)
    assert found.sites == {} and evidence.sentences(found) == [evidence.sentence(found)]


def test_of_many_sites_the_largest_have_a_column():
    told = of_sites(dict.fromkeys('fedcba', 0.5), size=24)
    keep = [i for i, e in enumerate(told['file'].exams) if e.site != 'c' or int(e.id[1:]) in (0, 23)]
    found = gathered({kind: p.at(keep) for kind, p in told.items()})
    assert list(found.sites) == [*'abde'] and found.notes == ('2 smaller sites are in all exams alone',)


def test_of_many_sites_nothing_is_cut_on_a_narrow_screen():
    """Names and intervals go on in the next line."""
    found = gathered(of_sites(dict.fromkeys(('stockholm-karolinska', 'oslo', 'rome', 'bergen'), 0.5), size=24))
    console = rich.console.Console(file=io.StringIO(), width=80)
    console.print(evidence.lines(found)[1])
    text = console.file.getvalue()
    assert '…' not in text and max(map(len, text.splitlines())) <= 80
    for of_site in found.sites.values():
        entry = of_site.rows['file']
        assert f'{entry["low"]:.3f} to' in text and f'{entry["high"]:.3f})' in text
