import os

import pytest
from layouts import refused

from covid_jax import UserError
from covid_jax.sources import listing, manifests
from covid_jax.sources.listing import read_columns, read_ids, say_other_counts


def test_only_other_counts_than_the_papers_are_said():
    said = []
    say_other_counts('X', ['covid', 'normal', 'covid'], {'covid': 2, 'normal': 1}, said.append)
    assert said == []
    say_other_counts('X', ['covid', 'odd'], {'covid': 2}, said.append)
    assert said == ['X: other counts than in the paper: 1 covid (the paper: 2), 1 odd (the paper: 0)']


@pytest.mark.parametrize('text', [
    'a,b,c\n1, x ,\n,y,2\n', '\n\r\nA;B;c\r\n1;x;\r\n;y;2\r\n', 'sep=;\nb;a\nx;1\ny;\n', 'c\tb\ta\n\tx\t1\n2\ty\n', 'sep=\t\r\na\tb\r\n1\tx\r\n\ty\r\n'])
def test_tables_of_any_spreadsheet_are_read(tmp_path, text):
    (tmp_path / 'm.csv').write_bytes(text.encode('utf-8-sig'))
    assert read_columns(tmp_path / 'm.csv', 'a', 'b') == [('1', 'x'), ('', 'y')]


@pytest.mark.parametrize('encoding, word', [('utf-16', 'b'), ('utf-16-le', 'b'), ('utf-16-be', 'b'), ('cp1252', 'schön')])
def test_text_of_another_encoding_says_what_to_do(tmp_path, encoding, word):
    (tmp_path / 'x').write_bytes(f'a,{word}\n1,2\n'.encode(encoding))
    for call in (read_ids, lambda path: read_columns(path, 'a')):
        assert 'x: no text in UTF-8: save the table as "CSV UTF-8", a list as UTF-8' in refused(call, tmp_path / 'x')


def test_a_pipe_in_the_place_of_a_table_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / 'scans.csv')
    with pytest.raises(UserError, match='scans.csv: a pipe or a device, no file'):
        listing.read_text(tmp_path / 'scans.csv')
    with pytest.raises(UserError, match='scans.csv: a pipe or a device, no file'):
        manifests.manifest(tmp_path / 'scans.csv')
