"""Predictive values against numbers worked out by hand, and their intervals against an equation that they solve."""

from math import hypot, inf

import pytest
from scipy.optimize import brentq

from covid_jax.metrics.prevalence import predictive_values


def entry(value, low=None, high=None, n=50):
    return {'value': value, 'low': low, 'high': high, 'n': n, 'level': 0.95}


def test_by_hand():
    """Of 1000 people 50 are sick: 45 of them are found, with 190 of the 950 others; 760 of these are sent home, with 5 who are sick."""
    found = predictive_values(entry(0.9, 0.8, 0.95, 40), entry(0.8, 0.7, 0.88, 60), 0.05)
    assert found['ppv']['value'] == pytest.approx(45 / 235) and found['npv']['value'] == pytest.approx(760 / 765)
    assert {name: of['n'] for name, of in found.items()} == {'ppv': 100, 'npv': 100} and found['ppv']['prevalence'] == 0.05


def test_at_a_half_it_is_what_equally_many_of_both_give():
    found = predictive_values(entry(0.9), entry(0.8), 0.5)
    assert found['ppv']['value'] == pytest.approx(0.9 / 1.1) and found['npv']['value'] == pytest.approx(0.8 / 0.9)


@pytest.mark.parametrize('prevalence', [0.05, 0.4])
def test_an_interval_ends_where_the_difference_of_both_shares_may_be_none(prevalence):
    """At a bound r of the ratio of a (wrongly) and b (rightly decided), a - r b lies as far from 0 as MOVER's interval of a difference reaches."""
    a, low_a, high_a = 0.2, 0.12, 0.3
    b, low_b, high_b = 0.9, 0.8, 0.95
    least = brentq(lambda r: a - r * b - hypot(a - low_a, r * (high_b - b)), 0, a / b)
    most = brentq(lambda r: r * b - a - hypot(high_a - a, r * (b - low_b)), a / b, 5)
    odds = (1 - prevalence) / prevalence
    found = predictive_values(entry(b, low_b, high_b), entry(1 - a, 1 - high_a, 1 - low_a), prevalence)['ppv']
    assert found['low'] == pytest.approx(1 / (1 + most * odds)) and found['high'] == pytest.approx(1 / (1 + least * odds))
    assert found['level'] == 0.95


def test_without_a_false_alarm_it_is_still_not_sure():
    """a is 0, at most 0.06; b is 1, at least 0.8: the ratio is at most 0.06 / sqrt(0.8 * 1.2)."""
    found = predictive_values(entry(1.0, 0.8, 1.0), entry(1.0, 0.94, 1.0), 0.05)
    assert (found['ppv']['value'], found['ppv']['high']) == (1, 1)
    assert found['ppv']['low'] == pytest.approx(1 / (1 + 0.06 / 0.96**0.5 * 19))
    assert found['npv']['low'] == pytest.approx(1 / (1 + 0.2 / (0.94 * 1.06)**0.5 / 19))


@pytest.mark.parametrize('sensitivity, specificity', [(0.0, 0.9), (0.05, 1.0), (1.0, 0.01), (0.02, 0.98)])
def test_it_lies_in_its_interval(sensitivity, specificity):
    wide = [(max(0.0, x - 0.2), min(1.0, x + 0.2)) for x in (sensitivity, specificity)]
    found = predictive_values(entry(sensitivity, *wide[0]), entry(specificity, *wide[1]), 0.1)
    for of in found.values():
        assert 0 <= of['low'] <= of['value'] <= of['high'] <= 1


def test_what_is_undefined_says_why():
    none = {'value': None, 'low': None, 'high': None, 'n': 0}
    assert predictive_values(none, entry(0.9), 0.1)['npv']['reason'].startswith('undefined')
    nobody = predictive_values(entry(0.0, 0.0, 0.1), entry(1.0, 0.9, 1.0), 0.1)
    assert nobody['ppv']['value'] is None and 'no exam' in nobody['ppv']['reason'] and nobody['npv']['value'] == pytest.approx(0.9)
    assert 'no interval' in predictive_values(entry(0.9), entry(0.9), 0.1)['ppv']['reason']
    for share in (0, 1, inf):
        with pytest.raises(ValueError, match='prevalence'):
            predictive_values(entry(0.9), entry(0.9), share)
