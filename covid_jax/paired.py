"""A paper's p-values of paired tests, each beside those of the runs in a folder."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from covid_jax import UserError, compare, papers
from covid_jax.config import PairedTests
from covid_jax.metrics.significance import Difference
from covid_jax.report import comparison

TESTS = comparison.FOLDS, comparison.CORRECTED


class Line(NamedTuple):
    """A p-value of a paper, and ours of one metric: the row against which, on the exams of a group. paper: as it is printed;
    difference: our row less the other, the mean over folds; plain, corrected: p of the t-tests over folds; runs: the numbers of the two
    runs in the list of runs, () where there are none to compare."""

    row: str
    group: str
    metric: str
    paper: str
    difference: str = '-'
    plain: str = '-'
    corrected: str = '-'
    runs: tuple[int, ...] = ()


class Tested(NamedTuple):
    """lines: of a table. runs: a sentence on each run in it. remarks: why a p-value is missing."""

    lines: list[Line]
    runs: list[str]
    remarks: list[str]


def tested(tests: PairedTests, config: str, stages: Sequence[papers.Stage], fields: Callable[[papers.Stage], dict]) -> Tested:
    """What a table of p-values shows: every pair of runs of configs/<config>.py that can be compared on the exams of a group, all of
    that site where it is one; where none can, a remark says why. fields: as of papers.shown."""
    result = Tested([], [], [])

    def listed(stage):
        asked = stage.row.partition(',')[2]
        told = f'{papers.where(stage)}{f": {asked}" if asked else ""}{papers.differences(stage, fields(stage))}'
        return papers.number_of(told, result.runs)

    for row, cells in tests.rows.items():
        pairs = [(ours, other) for ours in stages if papers.is_of(ours, config, tests.ours)
                 for other in stages if papers.is_of(other, config, row)]
        for group, paper in cells.items():
            found, refused = _compared(pairs, group)
            reasons = [] if found else refused or [f'there is no run of {tests.ours}, or none of {row}']
            for pair, differences in found.items():
                for metric in tests.metrics:
                    result.lines.append(_line(row, group, metric, paper, differences, tuple(map(listed, pairs[pair]))))
                    reasons += [differences[metric, test].reason for test in TESTS
                                if (metric, test) in differences and differences[metric, test].p is None]
                if (tests.metrics[0], comparison.CORRECTED) not in differences:
                    reasons.append('no corrected t-test: no exams.csv says how many patients were learnt from')
            if not found:
                result.lines.extend(Line(row, group, metric, paper) for metric in tests.metrics)
            result.remarks.extend(f'{row}, {group}: {reason}' for reason in dict.fromkeys(reasons) if reason)
    return result


def _compared(pairs, group):
    """{position of a pair: {(metric, test): Difference}} of the pairs that can be compared on the exams of a group, and why the
    others cannot."""
    found = {}
    refused = []
    for i, (ours, other) in enumerate(pairs):
        try:
            rows = compare.over_folds(papers.where(ours), _parts(ours, group), papers.where(other), _parts(other, group))
        except UserError as e:
            refused.append(str(e))
            continue
        found[i] = {(row.metric, row.test): row.difference for row in rows}
    return found, refused


def _parts(stage, group):
    """The parts of a stage, with their answers to the labelled exams of a group, named as in a data set of that site alone."""
    asked = papers.asked_of(stage, group)
    if asked is None:
        raise UserError(f'{papers.where(stage)} has no exams of {group}')
    if not stage.whole:
        raise UserError(f'{papers.where(stage)} is not finished: give its command again')
    split, answers = asked
    return [stage.parts[key]._replace(predictions=_of_one_source(answers[key].of(split).labelled())) for key in sorted(answers)]


def _of_one_source(rows):
    """The rows without the site before ids and patients, which a mix of sources puts there."""
    exams = [exam._replace(id=exam.id.removeprefix(f'{exam.site}/'), patient=exam.patient.removeprefix(f'{exam.site}/'))
             for exam in rows.exams]
    return rows._replace(exams=exams)


def _line(row, group, metric, paper, found, numbers):
    plain = found[metric, comparison.FOLDS]
    corrected = found.get((metric, comparison.CORRECTED), Difference())
    difference = '-' if plain.value is None else f'{plain.value:+.3f}'
    return Line(row, group, metric, paper, difference, comparison.p_value(plain), comparison.p_value(corrected), numbers)
