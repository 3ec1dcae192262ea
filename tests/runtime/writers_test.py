import json
from types import SimpleNamespace

import pytest

from covid_jax import UserError
from covid_jax.runtime import writers
from covid_jax.runtime.writers import Writer, progress, stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: clock.now, in seconds. It starts anywhere, as time.monotonic does."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(writers, 'time', SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_each_step_is_written_once(tmp_path):
    def rows():
        return [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]

    first = Writer(tmp_path, 0)
    first.write([{'step': s, 'loss': float(s)} for s in range(5)])
    first.close()
    with open(tmp_path / 'metrics.jsonl', 'a') as f:
        f.write('{"step": 5, "lo')  # killed in the middle of a line
    again = Writer(tmp_path, 3)
    again.write([{'step': s, 'loss': -float(s)} for s in range(3, 6)])
    again.close()
    assert [r['step'] for r in rows()] == [0, 1, 2, 3, 4, 5]
    assert [r['loss'] for r in rows()] == [0, 1, 2, -3, -4, -5]


@pytest.mark.parametrize('line', ['{"step"', '[]', '{"loss": 1}', '\0\0'])
def test_a_damaged_row_is_one_line_that_says_which(tmp_path, line):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 0}\n' + line + '\n')
    with pytest.raises(UserError, match='metrics.jsonl is damaged in line 2: delete this line'):
        Writer(tmp_path, 5)


def test_compilation_counts_for_no_rate(clock, capsys):
    """A minute of compilation, then 2 s a step of 8 scans: 4 scans/s, and 2 s for each step to go."""
    with progress(total=100, start=0, batch=8) as tell:
        clock.now += 62
        tell(1, 'loss 0.7', True)
        clock.now += 18
        tell(10, 'loss 0.6', False)  # 20 s have not passed since the last line
        clock.now += 20
        tell(20, 'loss 0.5', False)
        clock.now += 160
        tell(100, 'loss 0.4', False)
    assert capsys.readouterr().out.splitlines() == [
        'compiling the first step',
        'step 1/100  loss 0.7',
        'step 20/100  loss 0.5  4.0 scans/s  160 s to go',
        'step 100/100  loss 0.4  4.0 scans/s  0 s to go']


def test_the_first_validation_counts_for_no_rate(clock, capsys):
    """2 s a step, then a validation that is compiled for a minute: 2 s for each step to go, and nothing is guessed right after it."""
    with progress(total=100, start=0, batch=8) as tell:
        tell(1, 'loss 0.7', True)
        clock.now += 18
        tell(10, 'loss 0.6', False)
        clock.now += 60 + 20
        tell(20, 'loss 0.5', True)
        clock.now += 40
        tell(40, 'loss 0.4', False)
    assert capsys.readouterr().out.splitlines()[1:] == ['step 20/100  loss 0.5', 'step 40/100  loss 0.4  4.0 scans/s  120 s to go']


def test_steps_of_an_earlier_process_count_for_no_rate(clock, capsys):
    """Resumed at 90 of 100, compiled for 30 s: steps 92 to 97 took 5 s each."""
    with progress(total=100, start=90, batch=8) as tell:
        clock.now += 40
        tell(92, 'loss 0.5', True)
        clock.now += 25
        tell(97, 'loss 0.4', False)
    assert capsys.readouterr().out.splitlines() == [
        'compiling the first step',
        'step 92/100  loss 0.5',
        'step 97/100  loss 0.4  1.6 scans/s  15 s to go']


def test_a_terminal_shows_the_same(clock, capsys, monkeypatch):
    monkeypatch.setattr(writers.sys.stdout, 'isatty', lambda: True)
    monkeypatch.setenv('COLUMNS', '120')
    monkeypatch.setenv('TERM', 'dumb')
    with progress(total=100, start=0, batch=8) as tell:
        clock.now += 62
        tell(1, 'loss 0.7', True)
        clock.now += 38
        tell(20, 'loss 0.5', False)
    out = capsys.readouterr().out
    assert '20/100' in out and 'loss 0.5  4.0 scans/s  160 s to go' in out


def test_a_terminal_says_what_it_waits_for(monkeypatch, capsys):
    monkeypatch.setattr(writers.sys.stdout, 'isatty', lambda: True)
    monkeypatch.setenv('TERM', 'dumb')
    with progress(total=100, start=0, batch=8):
        pass
    assert '0/100 compiling the first step' in capsys.readouterr().out


def test_another_host_is_silent(clock, capsys):
    with progress(total=10, start=0, batch=8, shown=False) as tell:
        clock.now += 100
        tell(10, 'loss 0.7', True)
    assert capsys.readouterr().out == ''


def test_seconds_of_training_add_up_over_restarts(clock, tmp_path):
    def seconds():
        return json.loads((tmp_path / 'seconds.json').read_text())

    save = stopwatch(tmp_path)
    assert not list(tmp_path.iterdir())
    clock.now += 30
    save()
    assert seconds() == {'training': 30}
    clock.now += 12
    save()
    assert seconds() == {'training': 42}
    clock.now += 5  # lost: it is killed before it saves
    clock.now += 3600  # and started again an hour later
    save = stopwatch(tmp_path)
    clock.now += 8
    save()
    assert seconds() == {'training': 50}
    assert [path.name for path in tmp_path.iterdir()] == ['seconds.json']


def test_a_write_that_fails_leaves_the_seconds_before(clock, tmp_path, monkeypatch):
    save = stopwatch(tmp_path)
    clock.now += 30
    save()

    def fail(*paths):
        raise OSError('the disk is full')

    monkeypatch.setattr('os.replace', fail)
    clock.now += 30
    with pytest.raises(OSError):
        save()
    assert json.loads((tmp_path / 'seconds.json').read_text()) == {'training': 30}


@pytest.mark.parametrize('text', ['', '{"training"', '{}', '[3]', '{"training": "long"}'])
def test_damaged_seconds_are_one_line(tmp_path, text):
    (tmp_path / 'seconds.json').write_text(text)
    with pytest.raises(UserError, match='seconds.json is damaged: delete it'):
        stopwatch(tmp_path)
