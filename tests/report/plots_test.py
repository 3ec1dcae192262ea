import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from covid_jax.report.plots import (
    confusion_figure,
    confusion_png,
    decision_figure,
    reliability_figure,
    roc_figure,
    roc_png,
    roc_sites_figure,
    save,
)

MATRIX = np.array([[203, 6], [20, 145]])
LABEL, SCORE = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_cells_hold_counts_and_shares_of_the_truth():
    axes = confusion_figure(MATRIX, ('non', 'covid')).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): '203\n97.1 %', (1, 0): '6\n2.9 %', (0, 1): '20\n12.1 %', (1, 1): '145\n87.9 %'}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ['non\n(n = 209)', 'covid\n(n = 165)']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('predicted class', 'true class (exams, % of its row)')


def test_a_class_without_examples_has_counts_and_no_shares():
    texts = confusion_figure(np.array([[3, 0], [0, 0]]), ('non', 'covid')).axes[0].texts
    assert [text.get_text() for text in texts] == ['3\n100.0 %', '0\n0.0 %', '0\n-', '0\n-']


def test_roc_curve_and_area_by_hand():
    figure = roc_figure({'val': (LABEL, SCORE)})
    assert legend(figure) == ['AUC 0.500  chance', 'AUC 0.750  val (n = 4, 2 positive)']
    curve = figure.axes[0].lines[1].get_xydata().tolist()
    assert curve == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]


@pytest.mark.parametrize(('label', 'missing'), [([1, 1, 1, 1], 'negatives'), ([0, 0, 0, 0], 'positives')])
def test_an_undefined_roc_curve_says_so(label, missing):
    figure = roc_figure({'site B': (np.array(label), SCORE), 'val': (LABEL, SCORE)})
    assert legend(figure)[1:] == [f'undefined  site B: no {missing}', 'AUC 0.750  val (n = 4, 2 positive)']
    assert len(figure.axes[0].lines[1].get_xdata()) == 0


def test_the_frozen_threshold_is_marked_on_its_curve():
    """By hand: from 0.35 up are both positives and one of two others; a curve without a threshold has no mark."""
    figure = roc_figure({'val': (LABEL, SCORE), 'test': (LABEL, SCORE)}, 'covid', {'val': 0.35, 'test': None, 'train': 0.9})
    axes = figure.axes[0]
    marks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == 'o' and len(line.get_xdata())]
    assert marks == [[[0.5, 1.0]]]
    assert legend(figure)[-1] == 'at the threshold 0.350, frozen on val' and len(legend(figure)) == 4
    assert axes.get_xlabel() == '1 - specificity (share of the others called covid)'
    assert axes.get_ylabel() == 'sensitivity (share of covid called so)'


def test_axes_name_the_class_and_the_unit():
    curves = {'as answered': (LABEL, SCORE)}
    diagram, counts = reliability_figure(curves, 'covid').axes
    assert (diagram.get_ylabel(), counts.get_ylabel(), counts.get_xlabel()) == ('share of covid in the bin', 'exams', 'probability of covid')
    decision = decision_figure(curves, 'covid').axes[0]
    assert decision.get_ylabel() == 'net benefit (true positives for each exam)' and 'probability of covid' in decision.get_xlabel()


@pytest.mark.parametrize('note, colour', [('', 'black'), ('3 exams are of patients that runs/a learnt from', 'darkred')])
def test_titles_are_above_and_a_warning_turns_them_red(tmp_path, note, colour):
    figure = roc_figure({'val': (LABEL, SCORE)})
    save(tmp_path / 'roc.png', figure, 'runs/$a$: test\nn = 4', note)
    assert figure.get_suptitle() == 'runs/$a$: test\nn = 4' + (f'\n{note}' if note else '')
    assert figure._suptitle.get_color() == colour


def test_each_site_has_its_panel():
    """By hand: of rome the same scores with the labels turned round. Of five sites four are in a row, and no place is left framed."""
    figure = roc_sites_figure({'oslo': {'ours': (LABEL, SCORE)}, '$ro_me$': {'ours': (1 - LABEL, SCORE), 'joint': (LABEL, SCORE)}})
    assert [axes.get_title() for axes in figure.axes] == ['oslo', '$ro_me$']
    texts = [[text.get_text() for text in axes.get_legend().get_texts()[1:]] for axes in figure.axes]
    assert texts == [['AUC 0.750  ours (n = 4, 2 positive)'], ['AUC 0.250  ours (n = 4, 2 positive)', 'AUC 0.750  joint (n = 4, 2 positive)']]
    third = roc_sites_figure({'a': {'ours': (LABEL, SCORE), 'joint': (LABEL, SCORE)}, 'b': {'joint': (LABEL, SCORE)}})
    assert third.axes[0].lines[2].get_color() == third.axes[1].lines[1].get_color() != third.axes[0].lines[1].get_color()
    many = roc_sites_figure({f'site {i}': {'ours': (LABEL, SCORE)} for i in range(5)})
    assert [axes.axison for axes in many.axes] == [True] * 5 + [False] * 3


def test_reliability_by_bin_and_how_many_exams_each_has():
    """By hand: 0.5 and 0.52 are of one bin of 15, one of them positive; 0.9 is alone."""
    figure = reliability_figure({'as answered': (np.array([0, 1, 1]), np.array([0.5, 0.52, 0.9]))})
    diagram, counts = figure.axes
    np.testing.assert_allclose(diagram.lines[1].get_xydata(), [[0.51, 0.5], [0.9, 1]])
    assert [patch.get_height() for patch in counts.patches if patch.get_height()] == [2, 1]
    assert legend(figure)[1] == 'ECE 0.040  as answered (n = 3)'  # (2 * 0.01 + 0.1) / 3


def test_decision_curves_of_all_and_none_stand_beside_the_models():
    """By hand: at 0.2 both positives and one other are treated, at odds of 1/4; of treating all it is two others."""
    figure = decision_figure({'as answered': (LABEL, SCORE)})
    found = {line.get_label(): line.get_ydata()[20] for line in figure.axes[0].lines}
    assert found == pytest.approx({'as answered': 0.5 - 0.25 / 4, 'treat all': 0.5 - 0.5 / 4, 'treat none': 0})


def test_files_are_images_with_ink_and_nothing_else_is_left(tmp_path):
    confusion_png(tmp_path / 'confusion.png', MATRIX, ('non', 'covid'))
    roc_png(str(tmp_path / 'roc.png'), {'one class': (np.ones(4, int), SCORE)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ['confusion.png', 'roc.png']
    for name in ('confusion.png', 'roc.png'):
        with Image.open(tmp_path / name) as image:
            assert image.format == 'PNG' and min(image.size) >= 400
            assert np.asarray(image.convert('L')).std() > 10


def test_matplotlib_is_imported_by_the_first_plot_and_pyplot_never(tmp_path):
    code = ('import sys, numpy as np, covid_jax.report.plots as plots; assert "matplotlib" not in sys.modules; '
            f'plots.confusion_png({str(tmp_path / "a.png")!r}, np.eye(2, dtype=int), ("a", "b")); '
            'assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules and "jax" not in sys.modules')
    subprocess.run([sys.executable, '-B', '-c', code], check=True, timeout=120)
