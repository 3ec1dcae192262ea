import pytest

from covid_jax import UserError
from covid_jax.data import lineage
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts


def exam(name, split, patient='', site='here'):
    return Exam(name, patient or name, site, 'covid', split, '')


SOURCE = [exam('a', 'train'), exam('b', 'train', 'bert'), exam('c', 'val'), exam('d', 'test'), exam('e', '')]
BEFORE = lineage.inherited(lineage.own(SOURCE, list('ABCDE')), 'runs/first')


@pytest.mark.parametrize('mine, digest, leak', [
    (exam('x', 'test'), 'A', True),  # the same scan under another name
    (exam('x', 'val', 'bert'), '-', True),  # another scan of a patient that was learnt from
    (exam('x', 'test', 'here/bert'), '-', True),  # as a mix of sources calls the patient
    (exam('x', 'test', 'bert', 'there'), '-', False),  # another hospital's bert
    (exam('x', 'test', 'bert', 'default'), '-', False),  # or nobody knows whose
    (exam('x', 'train'), 'A', False),  # learnt from twice
    (exam('x', 'test'), 'C', True),  # the checkpoint was chosen on it
    (exam('x', 'val'), 'C', False),  # and may be again
    (exam('x', 'test'), 'D', False), (exam('x', 'test'), 'E', False),  # tested, not used
])
def test_what_leaks(mine, digest, leak):
    found = lineage.leaks([mine], [digest], BEFORE)
    assert found == ({'x': 'runs/first'} if leak else {})
    if leak:
        with pytest.raises(UserError, match='runs/first learnt from .* --config.allow_leak=True'):
            lineage.refuse(found, [mine])
    else:
        lineage.refuse(found, [mine])


@pytest.mark.parametrize('learnt, mine, leak', [
    ('X (train)', 'X', True),  # by the lists of the source, then whole, where patients are drawn
    ('X', 'X (test)', True),  # the other way round
    ('X (train)', 'X (test)', False),  # by the lists in both: what they tear is theirs to say
    ('X', 'X', True), ('X', 'Y', False), ('X (train)', 'Y', False)])
def test_a_group_that_the_lists_tear_is_known_where_one_run_has_it_whole(learnt, mine, leak):
    before = lineage.inherited(lineage.own([exam('a', 'train', learnt)], ['A']), 'runs/first')
    assert bool(lineage.leaks([exam('b', 'test', mine)], ['B'], before)) is leak


def test_a_site_without_a_name_is_known_by_a_scan_that_both_have():
    """Patients 1 of two tables are two people, but one where the tables share a scan; also in a mix, which calls the site and
    the patient by the table's name."""
    before = lineage.inherited(lineage.own([exam('s', 'train', '1', 'default'), exam('t', 'train', '2', 'default')],
                                           ['S', 'T']), 'runs/first')
    mine = [exam('u', 'test', '1', 'default'), exam('v', 'train', '3', 'default')]
    assert not lineage.leaks(mine, ['U', 'V'], before)
    assert lineage.leaks(mine, ['U', 'T'], before) == {'u': 'runs/first'}
    mixed = [exam('oslo/u', 'test', 'oslo/1', 'oslo'), exam('oslo/v', 'train', 'oslo/3', 'oslo')]
    assert not lineage.leaks(mixed, ['U', 'V'], before)
    assert lineage.leaks(mixed, ['U', 'T'], before) == {'oslo/u': 'runs/first'}
    folders = [exam('covid/0', 'test', 'covid/0', 'default'), exam('v', 'train', '3', 'default')]
    assert not lineage.leaks(folders, ['U', 'T'], lineage.inherited(lineage.own(
        [exam('normal/0', 'train', 'normal/0', 'default'), exam('t', 'train', '2', 'default')], ['S', 'T']), 'runs/first'))


def test_a_run_knows_all_before_it(tmp_path):
    """What the first run learnt from reaches the third through the second's table, wherever the folders have moved."""
    second = [*lineage.own([exam('f', 'train')], ['F']), *lineage.inherited(BEFORE, tmp_path / 'never')]
    second = [row._replace(run=str(tmp_path / 'first') if row.run else '') for row in second]
    (tmp_path / 'second').mkdir()
    lineage.write(tmp_path / 'second', second)
    assert '../first' in (tmp_path / 'second' / 'exams.csv').read_text()
    (tmp_path / 'second').rename(tmp_path / 'moved')
    table = lineage.read(tmp_path / 'moved')
    third = lineage.leaks([exam('x', 'test'), exam('y', 'test')], ['A', 'F'], lineage.inherited(table, tmp_path / 'moved'))
    assert third == {'x': str(tmp_path / 'first'), 'y': str(tmp_path / 'moved')}


def test_names_that_a_spreadsheet_would_run_are_read_as_they_were(tmp_path):
    rows = lineage.own([exam('=1+1', 'train', '@bert', '-')._replace(label='+')], ['F'])
    lineage.write(tmp_path, rows)
    assert lineage.read(tmp_path) == rows


def test_no_table(tmp_path):
    with pytest.raises(UserError, match='no exams.csv'):
        lineage.read(tmp_path)
    (tmp_path / 'exams.csv').write_text('id\n')
    with pytest.raises(UserError, match='expected the columns'):
        lineage.read(tmp_path)


def test_what_files_tell_is_kept_and_older_tables_lack_it(tmp_path):
    facts = [Facts('PNG', 'RGBA', 512, 300, 12345)]
    lineage.write(tmp_path, lineage.own([exam('a', 'train')], ['A'], facts))
    assert [row.facts for row in lineage.read(tmp_path)] == facts
    header, row = (tmp_path / 'exams.csv').read_text().splitlines()
    assert header.endswith('run,format,mode,width,height,bytes') and row.endswith(',PNG,RGBA,512,300,12345')
    (tmp_path / 'exams.csv').write_text('\n'.join(line.rsplit(',', 5)[0] for line in (header, row)) + '\n')
    assert lineage.read(tmp_path) == lineage.own([exam('a', 'train')], ['A'])
