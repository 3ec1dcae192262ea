"""Whether numbers of one row of a paper's table can come from one confusion matrix."""

from collections.abc import Mapping

import numpy as np


def contradictions(values: Mapping[str, float], rounding: float, positives: int = 0, negatives: int = 0,
                   means: bool = False) -> list[str]:
    """What cannot be about the numbers of one row, a sentence each; [] where nothing contradicts them.

    Args:
        values: {metric: fraction in [0, 1]} of a two-class task: accuracy, sensitivity, specificity, precision, f1 (of the
            positive class), macro_f1; other metrics are passed over.
        rounding: half of the last digit that the paper gives, as a fraction: 0.00005 for 91.71 %.
        positives, negatives: how many exams of each class were tested, where it is known; 0: unknown.
        means: the numbers are means over several runs.

    With counts every confusion matrix is tried, for each number alone and then for all together. Without them two laws are left:
    accuracy lies between sensitivity and specificity, and F1 is the harmonic mean of precision and sensitivity. Of means half of the
    second is left: the harmonic mean is concave, so a mean of F1 is not above that of the means.
    """
    known = {name: value for name, value in values.items() if name in ('accuracy', 'sensitivity', 'specificity', 'precision', 'f1',
                                                                       'macro_f1')}
    found = _broken_laws(known, rounding, means)
    if means or not positives or not negatives:
        return found
    possible = _of_every_matrix(positives, negatives)
    fits = {name: np.abs(possible[name] - value) <= rounding + 1e-9 for name, value in known.items()}
    counted = f'{positives} positives and {negatives} negatives'
    alone = [f'no counts of {counted} give {name} {_percent(known[name])}' for name, fit in fits.items() if not fit.any()]
    if not alone and not found and len(fits) > 1 and not np.logical_and.reduce(list(fits.values())).any():
        together = ', '.join(f'{name} {_percent(known[name])}' for name in fits)
        return [f'no counts of {counted} give {together} together']
    return found + alone


def _broken_laws(values, rounding, means):
    found = []
    if {'accuracy', 'sensitivity', 'specificity'} <= values.keys() and not means:
        low, high = sorted((values['sensitivity'], values['specificity']))
        if not low - 2 * rounding <= values['accuracy'] <= high + 2 * rounding:
            found.append(f'accuracy {_percent(values["accuracy"])} is not between sensitivity {_percent(values["sensitivity"])} '
                         f'and specificity {_percent(values["specificity"])}')
    if {'f1', 'precision', 'sensitivity'} <= values.keys():
        precision = values['precision']
        recall = values['sensitivity']
        low = _harmonic(max(precision - rounding, 0), max(recall - rounding, 0)) - rounding
        high = _harmonic(precision + rounding, recall + rounding) + rounding
        rates = f'the harmonic mean of precision {_percent(precision)} and sensitivity {_percent(recall)}'
        if values['f1'] > high and means:
            found.append(f'F1 {_percent(values["f1"])} is above {rates}, which a mean over runs never is')
        elif not (means or low <= values['f1'] <= high):
            found.append(f'F1 {_percent(values["f1"])} is not {rates}')
    return found


def _of_every_matrix(positives, negatives):
    """{metric: [positives + 1, negatives + 1]} for every number of hits and of correct rejections."""
    hits = np.arange(positives + 1)[:, None]
    rejections = np.arange(negatives + 1)[None]
    missed = positives - hits
    alarms = negatives - rejections
    f1 = 2 * hits / np.maximum(2 * hits + missed + alarms, 1)
    f1_of_others = 2 * rejections / np.maximum(2 * rejections + missed + alarms, 1)
    everywhere = np.zeros_like(hits * rejections)
    return {'accuracy': (hits + rejections) / (positives + negatives),
            'sensitivity': hits / positives + everywhere,
            'specificity': rejections / negatives + everywhere,
            'precision': hits / np.maximum(hits + alarms, 1),
            'f1': f1,
            'macro_f1': (f1 + f1_of_others) / 2}


def _harmonic(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def _percent(value):
    return f'{100 * value:.2f} %'
