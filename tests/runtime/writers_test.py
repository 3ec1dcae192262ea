import json

from covid_jax.runtime.writers import Writer


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
