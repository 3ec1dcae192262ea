"""What a user sees while scans are prepared and there is no terminal."""

from covid_jax.data import parts


def told(total, there, seconds, monkeypatch, capsys):
    """The lines where each scan that is left takes so many seconds."""
    clock = iter(seconds * n for n in range(total + 1))
    monkeypatch.setattr(parts.time, 'monotonic', lambda: next(clock))
    with parts._progress(total, there) as advance:
        for _ in range(total - there):
            advance()
    return capsys.readouterr().out.splitlines()


def test_a_line_is_printed_now_and_then(monkeypatch, capsys):
    assert told(10, 0, 8, monkeypatch, capsys) == [f'preparing scans {n}/10' for n in (0, 3, 6, 9, 10)]
    assert told(10, 0, 1, monkeypatch, capsys) == ['preparing scans 0/10', 'preparing scans 10/10']


def test_what_is_there_already_is_said_and_counted(monkeypatch, capsys):
    assert told(300, 240, 0.1, monkeypatch, capsys) == ['240 of 300 scans are prepared already', 'preparing scans 300/300']
    assert told(300, 300, 1, monkeypatch, capsys) == []
