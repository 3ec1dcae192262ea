"""What runs reach on other data, as it is printed."""

from covid_jax.report import beside


def entry(value):
    return {'value': value, 'low': value - 0.1, 'high': value + 0.1, 'level': 0.95, 'n': 40}


def test_nothing_is_cut_on_a_narrow_screen(monkeypatch, capsys):
    """A long name of a site goes on in the next line, as an interval does."""
    monkeypatch.setenv('COLUMNS', '80')
    names = ('auc', 'average_precision', *beside.DECIDED, 'ece', 'brier')
    metrics = {name: entry(0.5 + 0.01 * i) for i, name in enumerate(names)}
    metrics['auc'] = {**metrics['auc'], 'positive': 'covid'}
    site = 'site of-a-very-long-name-of-a-hospital'
    here = {'all': {**metrics, 'threshold_frozen': {'value': 0.5}}, site: metrics}
    beside.show('title', here, here, None)
    out = capsys.readouterr().out
    assert '…' not in out and max(map(len, out.splitlines())) <= 80
    assert out.count('0.400') >= 3 and 'hospital' in ''.join(out.split()).replace('│', '')
