import csv
import os

import pytest

from covid_jax.runtime import files
from covid_jax.text import from_cell


@pytest.mark.parametrize('content', ['a\r\nb\né', b'\x00\xff\r\n'])
def test_a_file_holds_what_was_given_and_stands_alone(tmp_path, content):
    path = tmp_path / 'metrics.json'
    path.write_text('older')
    files.write(str(path), content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ['metrics.json']


def test_a_write_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / 'roc.png'
    path.write_bytes(b'older')

    def full(*paths):
        raise OSError('no space left')

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(OSError, match='no space'):
        files.write(path, b'newer')
    assert path.read_bytes() == b'older'


def test_no_cell_of_a_table_is_a_formula_and_each_is_read_back(tmp_path):
    rows = [['id', 'n'], ['=HYPERLINK("x")', -1.5], ['a,"b"\nc', 2], ["'@d", 3]]
    files.write_csv(tmp_path / 'table.csv', rows)
    with open(tmp_path / 'table.csv', newline='') as f:
        written = list(csv.reader(f))
    assert not any(row[0].startswith(('=', '@')) for row in written) and written[1][1] == '-1.5'
    assert [from_cell(row[0]) for row in written] == [row[0] for row in rows]
