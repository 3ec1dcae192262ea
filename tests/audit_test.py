"""What an audit finds in a data set of which everything is wrong, and in one of which nothing is."""

import base64
import html
import io
import json
import re
import shutil

import numpy as np
import pytest
from dicoms import ct
from PIL import Image

from covid_jax import UserError, cli
from covid_jax.audit import _is_above_chance, _placed, _torn, audit
from covid_jax.commands.audit import _check_folder, _page, in_own_words
from covid_jax.config import base
from covid_jax.data.parts import Seen
from covid_jax.data.telling import kinds_of_files, units, unread
from covid_jax.predictions import Predictions
from covid_jax.report import evidence
from covid_jax.report.audit import Audit, write
from covid_jax.report.described import counted, described
from covid_jax.report.thumbnails import picture as shown
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts
from covid_jax.sources.unread import LOST, MASK, Unread

CLASSES = ('normal', 'covid')


def volume(path, seed, grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(seed).integers(-1000, 900, (4, 64, 64)).astype(np.int16)
    np.save(path, np.clip((hu + 1350) / 1500 * 255, 0, 255).astype(np.uint8) if grey else hu)


def of(source, root):
    c = base()
    c.data.update(source=source, root=str(root), classes=CLASSES)
    return c


@pytest.fixture(scope='module')
def spoilt(tmp_path_factory):
    """The Audit of a table in which patients, copies, near duplicates, units and a broken scan go against the splits and the labels."""
    root = tmp_path_factory.mktemp('spoilt')
    rows = ['path,label,patient,split']
    for i in range(8):
        label = CLASSES[i % 2]
        volume(root / f's{i}.npy', i, label == 'covid')
        rows.append(f's{i}.npy,{label},p{i},{("train", "train", "train", "train", "val", "val", "test", "test")[i]}')
    shutil.copy(root / 's0.npy', root / 'to_val.npy')
    shutil.copy(root / 's2.npy', root / 'as_covid.npy')
    picture = np.random.default_rng(9).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(picture).save(root / 'near.png')
    Image.fromarray(picture // 2 + 20).save(root / 'near2.png')
    Image.fromarray(picture).save(root / 'near3.bmp')
    for i in range(2):
        np.save(root / f'flat{i}.npy', np.full((4, 64, 64), -1001 - i, np.int16))  # all below the window
    (root / 'broken.npy').write_bytes(b'x')
    rows += ['to_val.npy,normal,p0,val', 'as_covid.npy,covid,P2,train', 'near.png,covid,n1,train', 'near2.png,normal,n2,test', 'near3.bmp,covid,n3,train',
             'flat0.npy,normal,f0,train', 'flat1.npy,normal,f1,val', 'broken.npy,covid,b,train']
    (root / 'm.csv').write_text('\n'.join(rows))
    return audit(of('manifest', root / 'm.csv'), root / 'store', lambda line: None)


@pytest.mark.parametrize('words', [
    '1 patient or article is in more than one split: p0;',
    '1 scan is here more than once, in several splits: s0.npy (train) = to_val.npy (val);',
    '1 scan is here more than once, of several classes: s2.npy (normal) = as_covid.npy (covid);',
    'near duplicates in two splits: 1 cluster, near.png (train) = near2.png (test);',
    'in Hounsfield units and in grey values are mixed (normal 7 and 1, covid 1 and 6)',
    '1 file or scan is not read (covid 1 of 8, normal 0 of 8):'])
def test_what_would_spoil_a_result_is_said(spoilt, words):
    assert [words in line for line in spoilt.spoils].count(True) == 1, spoilt.spoils


@pytest.mark.parametrize('words', [
    '1 scan is here more than once, of several patients: near.png (n1) = near3.bmp (n3);',
    'near duplicates of two classes: 1 cluster, near.png (covid) = near2.png (normal);',
    'probes of shortcuts on val: no interval: 1 patient of class covid, 2 needed',
    "patients that differ in case, spaces or zeros in front alone are kept apart, as they are written: 'P2' and 'p2'"])
def test_what_wants_a_look_is_said(spoilt, words):
    assert [words in line for line in spoilt.looks].count(True) == 1, spoilt.looks


def test_tables_tell_the_classes_apart(spoilt):
    assert list(spoilt.unread) == ['broken.npy']
    exams, scans, probes = spoilt.tables.values()
    assert exams == [('class', 'site', 'train', 'val', 'test'), ('normal', 'default', '3 (3)', '3 (3)', '2 (2)'),
                     ('covid', 'default', '6 (6)', '1 (1)', '1 (1)')]
    assert scans[0] == ('', 'normal', 'covid') and ('in Hounsfield units', '7', '1') in scans and ('in grey values', '1', '6') in scans
    assert ('files', '7 npy, 1 PNG L', '5 npy, 1 PNG L, 1 BMP L') in scans
    assert ('slices', '1 .. 4 .. 4', '1 .. 4 .. 4') in scans and ('greatest value', '-1002 .. 899 .. 899', '254 .. 255 .. 899') in scans
    assert [row[0] for row in probes] == ['probe', 'thumbnail', 'border', 'file']


def test_the_page_holds_all_of_it_and_runs_nothing_of_a_name(spoilt, tmp_path):
    name = '<script>alert(1)</script>'
    pictures = {**spoilt.pictures, name: [(name, np.eye(64, dtype=np.uint8))]}
    write(tmp_path / 'new', name, spoilt._replace(unread={name: 'why'}, pictures=pictures, said=[name], lists={**spoilt.lists, name: [(name,)]}))
    page = (tmp_path / 'new' / 'audit.html').read_text()
    assert all(html.escape(line) in re.sub('</?span[^>]*>', '', page) for line in [*spoilt.spoils, *spoilt.looks])
    assert '<span class="option">--config.data.split</span>=drawn' in page and '<td>6 (6)</td>' in page
    assert '<script' not in page and page.count(html.escape(name)) == 8 and '<meta name="viewport"' in page
    assert list(spoilt.pictures) == ['normal: 8 of 8', 'covid: 7 of 7', 'near duplicates in two splits, pair by pair',
                                     'near duplicates of two classes, pair by pair']
    captions = [caption for caption, _ in spoilt.pictures['near duplicates in two splits, pair by pair']]
    assert captions == ['near.png (train)', 'near2.png (test)'] and page.count('<img') == 8 + 7 + 2 + 2 + 1
    assert page.count('<span class="pair"><figure>') == 2
    picture = re.findall('base64,([^"]*)"', page)[-1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))), np.eye(64))


def test_the_page_lists_all_that_a_finding_gives_examples_of(spoilt):
    assert spoilt.lists['patients in more than one split'] == [('patient', 'splits'), ('p0', 'train and val')]
    assert spoilt.lists['one scan of several patients'][1:] == [('1', 'near.png', 'n1'), ('1', 'near3.bmp', 'n3')]
    assert spoilt.lists['near duplicates in two splits, the two of each cluster that are most alike'][1:] == [('near.png', 'train', 'near2.png', 'test')]
    pairs = [row for title, rows in spoilt.lists.items() if 'near' in title for row in rows[1:]]
    assert not any({row[0], row[2]} in ({'s0.npy', 'to_val.npy'}, {'s2.npy', 'as_covid.npy'}) for row in pairs)  # said as copies


@pytest.mark.parametrize('shape, spacing, size', [((1, 30, 60), None, (64, 128)), ((1, 60, 30), None, (128, 64)), ((9, 64, 64), (5.0, 1.0, 2.0), (64, 128)),
                                                  ((1, 2, 900), None, (32, 128))])
def test_a_thumbnail_has_the_height_and_width_of_the_scan(shape, spacing, size):
    exam = Exam('a', 'a', '', '', '', '')
    caption, pixels = shown(exam, np.full((1, 64, 64, 1), 7, np.uint8), {'a': Seen(shape, spacing, False, 0, 1)}, 'val')
    assert pixels.shape == size and (pixels == 7).all() and caption == 'a (val)'


def test_sizes_and_spacings_of_a_class():
    exams = [Exam(f'{i}', f'{i}', '', ('covid', 'normal', '')[i % 3], '', '') for i in range(6)]
    seen = {f'{i}': Seen((10 + i, 4, 5), (1.25, 0.5, 0.7) if i < 3 else None, i % 2 == 0, -1000.0, 100.0 + i) for i in range(6)}
    facts = {f'{i}': Facts('PNG', 'L') if i < 3 else Facts() for i in range(6)}
    rows = {row[0]: row[1:] for row in described(exams, seen, facts, CLASSES)}
    assert rows['files'] == ('1 PNG L, 1 not known',) * 3
    assert rows[''] == ('without a label', 'normal', 'covid') and rows['slices'] == ('12 .. 13.5 .. 15', '11 .. 12.5 .. 14', '10 .. 11.5 .. 13')
    assert rows['mm between slices'] == ('1.25',) * 3 and rows['mm in plane'] == ('0.7',) * 3 and rows['without spacing'] == ('1', '1', '1')
    assert rows['in Hounsfield units'] == ('1', '1', '1') and rows['greatest value'][2] == '100 .. 101.5 .. 103'


def test_exams_and_patients_are_counted_by_class_and_site():
    exams = [Exam(f'{i}', f'p{i // 2}', ('oslo', 'rome')[i // 4], ('covid', '')[i == 7], ('train', 'test')[i // 6], '') for i in range(8)]
    assert counted(exams, CLASSES) == [('class', 'site', 'train', 'test'), ('without a label', 'rome', '0 (0)', '1 (1)'),
                                       ('covid', 'oslo', '4 (2)', '0 (0)'), ('covid', 'rome', '2 (1)', '1 (1)')]


def test_the_command_ends_with_1_where_a_result_would_be_spoilt_and_else_with_0(tmp_path, capsys, monkeypatch):
    """Hounsfield units of one class, and grey values of the other, are a label that anyone can read."""
    for i in range(10):
        volume(tmp_path / 'good' / CLASSES[i % 2] / f'{i}.npy', i)
        volume(tmp_path / 'bad' / CLASSES[i % 2] / f'{i}.npy', i, i % 2 == 0)
    for place in ('good/covid', 'good/normal', 'bad/covid'):
        (tmp_path / place / 'x.unread').write_bytes(b'x')
    monkeypatch.chdir(tmp_path)
    cli.run(['audit', f'{tmp_path}/good'])
    out = ' '.join(capsys.readouterr().out.split())
    assert f'{tmp_path}/good is read as --source=folder: a public data set may have' in out
    assert 'look at: 2 files or scans are not read (covid 1 of 6, normal 1 of 6)' in out
    assert 'nothing was found that would spoil a result' in out and '│noncovid │ default │ 3 (3) │ 1 (1) │ 1 (1)│' in out
    assert 'the same with thumbnails: audit.html' in out and (tmp_path / 'audit.html').exists()
    assert 'alone tells the label' not in out
    with pytest.raises(SystemExit) as e:
        cli.run(['audit', '--source=folder', f'{tmp_path}/bad', '--classes=normal,covid', f'--store={tmp_path}/store', f'--out={tmp_path}/page'])
    out = ' '.join(capsys.readouterr().out.split())
    assert e.value.code == 1 and (tmp_path / 'store' / 'hashes.json').exists() and (tmp_path / 'page' / 'audit.html').exists()
    assert 'would spoil a result: scans in Hounsfield units and in grey values are mixed (normal 0 and 5, covid 5 and 0)' in out
    assert f'not read: {tmp_path}/bad/covid/x.unread: not a scan' in out and 'is not read (covid 1 of 6, normal 0 of 5)' in out
    table = next(path for path in (tmp_path / 'store').glob('*/table.json'))
    table.write_text(json.dumps({name: of for name, of in json.loads(table.read_text()).items() if name != 'seen'}))
    with pytest.raises(UserError, match=f'{table.parent} was made by an older version, .*delete that folder'):
        cli.run(['audit', f'{tmp_path}/bad', '--classes=normal,covid', f'--store={tmp_path}/store'])


def test_masks_and_what_speaks_of_scans_spoil_nothing(tmp_path, capsys):
    """Though they lie in the folder of one class alone; they are told apart from a scan of a format that is not read."""
    for i in range(10):
        volume(tmp_path / 'data' / CLASSES[i % 2] / f'{i}.npy', i)
    for name in ('README.md', 'LICENSE', 'list.csv', 'a.json', 'sources.txt'):
        (tmp_path / 'data' / 'covid' / name).write_text('x')
    for i in range(1, 10, 2):
        np.save(tmp_path / 'data' / 'covid' / f'{i}_mask.npy', np.ones((4, 64, 64), np.uint8))
    found = audit(of('folder', tmp_path / 'data'), tmp_path / 'store', lambda line: None)
    assert not found.spoils and any('5 files are by their names masks of scans beside them, and no exams (5 covid)' in line for line in found.looks)
    assert list(found.unread) == [*(f'covid/{i}_mask.npy' for i in range(1, 10, 2)), *(f'covid/{name}' for name in
                                  ('LICENSE', 'README.md', 'a.json', 'list.csv', 'sources.txt'))]
    (tmp_path / 'data' / 'covid' / 'scan.xyz').write_bytes(b'x')
    found = audit(of('folder', tmp_path / 'data'), tmp_path / 'store', lambda line: None)
    assert ['1 file or scan is not read (covid 1 of 6, normal 0 of 5)' in line for line in found.spoils] == [True]
    assert next(iter(found.unread)) == 'covid/scan.xyz'


@pytest.mark.parametrize('kinds, told', [
    ({'covid': 'RGBA RGBA', 'normal': 'L L'}, 'L: covid 0 of 2, normal 2 of 2; RGBA: covid 2 of 2, normal 0 of 2'),
    ({'covid': 'RGBA', 'normal': 'L L'}, ''), ({'covid': 'RGBA RGBA L', 'normal': 'L L L'}, ''),
    ({'covid': 'RGB ' * 20, 'normal': 'RGB ' * 9 + 'L ' * 11}, 'L: covid 0 of 20, normal 11 of 20; RGB: covid 20 of 20, normal 9 of 20'),
    ({'covid': 'RGB ' * 20, 'normal': 'RGB ' * 11 + 'L ' * 9}, ''),  # by chance once in 800
    ({'covid': 'L ' * 99 + 'RGB', 'normal': 'L ' * 97 + 'RGB ' * 3}, ''), ({'covid': 'L ' * 20, 'normal': 'L ' * 14 + 'RGB ' * 6}, ''),
    ({'covid': 'L ' * 2000, 'normal': 'L ' * 1960 + 'RGB ' * 40}, ''), ({'covid': 'L L'}, ''), ({'covid': 'L L', '': 'RGB RGB'}, ''),
    ({'covid': 'L ' * 20, 'normal': 'L ' * 20, '': 'RGB ' * 20}, '')])
def test_kinds_of_files_that_go_with_the_class_are_said(kinds, told):
    of = [(label, mode) for label, modes in kinds.items() for mode in modes.split()]
    exams = [Exam(f'{i}', f'{i}', '', label, '', '') for i, (label, _) in enumerate(of)]
    said = []
    kinds_of_files(exams, [Facts('', mode) for _, mode in of], CLASSES, said.append)
    assert [f'({told})' in line for line in said] == [True] * bool(told), said


@pytest.mark.parametrize('hounsfield, spoils', [
    ({'covid': (12, 0), 'normal': (1, 12)}, True), ({'covid': (5, 0), 'normal': (0, 5)}, True), ({'covid': (1, 0), 'normal': (0, 1)}, True),
    ({'covid': (4, 0), 'normal': (2, 2)}, True), ({'covid': (4, 0), 'normal': (3, 2)}, False), ({'covid': (3, 1), 'normal': (1, 1)}, False),
    ({'covid': (100, 20), 'normal': (60, 60)}, True), ({'covid': (100, 3), 'normal': (100, 8)}, False), ({'covid': (3, 9)}, False),
    ({'covid': (5, 0), 'normal': (5, 0)}, None), ({'covid': (5, 5), 'normal': (5, 5), '': (0, 9)}, False)])
def test_units_that_go_with_the_class_spoil_a_result_by_their_majority(hounsfield, spoils):
    of = [(label, k < hu) for label, (hu, other) in hounsfield.items() for k in range(hu + other)]
    exams = [Exam(f'{i}', f'{i}', '', label, 'train', '') for i, (label, _) in enumerate(of)]
    seen = {f'{i}': Seen((4, 4, 4), None, is_hu, 0, 1) for i, (_, is_hu) in enumerate(of)}
    said = {True: [], False: []}
    units(exams, seen, CLASSES, said[True].append, said[False].append)
    assert [kind for kind, lines in said.items() if lines] == ([] if spoils is None else [spoils])


@pytest.mark.parametrize('lost, spoils', [(0, None), (5, False), (6, True)])
def test_what_is_not_read_spoils_a_result_where_one_class_has_5_percent_more_of_it(lost, spoils):
    exams = [Exam(f'{i}', f'{i}', '', CLASSES[i % 2], '', '') for i in range(200)]
    left = [Unread(f'x{i}', 'covid', '', LOST, 'why') for i in range(lost)]
    said = {True: [], False: []}
    unread(exams, {}, [*left, Unread('m', 'covid', '', MASK, 'why')], said[True].append, said[False].append)
    assert [kind for kind, lines in said.items() if lines] == [] if spoils is None else said[spoils] and not said[not spoils]


def grey(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_what_looks_alike_but_not_surely_wants_a_look_alone_and_patients_of_two_classes_do(tmp_path):
    """Edges of one picture mixed with those of another, so that they correlate by 0.87: two X-rays may. No exam is in val or test."""
    rng = np.random.default_rng(1)
    one, other, *more = (rng.integers(0, 120, (64, 64)) for _ in range(5))
    grey(tmp_path / 'a.png', (one * 2).astype(np.uint8))
    grey(tmp_path / 'b.bmp', (one + 0.57 * other).astype(np.uint8))
    rows = ['path,label,patient,split', 'a.png,covid,p,train', 'b.bmp,normal,q,val']
    for i, pixels in enumerate(more):
        name = f'{i}.{("bmp", "png")[i % 2]}'
        grey(tmp_path / name, pixels.astype(np.uint8))
        rows.append(f'{name},{CLASSES[i % 2]},r,train')
    (tmp_path / 'm.csv').write_text('\n'.join(rows))
    found = audit(of('manifest', tmp_path / 'm.csv'), tmp_path / 'store', lambda line: None)
    assert not found.spoils
    looks = '\n'.join(found.looks)
    assert 'scans that look alike, in two splits: 1 cluster, a.png (train) = b.bmp (val); two people' in looks
    assert 'the kind of file goes with the class (BMP L: covid 0 of 2, normal 3 of 3; PNG L: covid 2 of 2, normal 0 of 3)' in looks
    assert '1 patient has scans of more than one class: r (covid and normal);' in looks
    (tmp_path / 'm.csv').write_text('\n'.join(rows).replace('val', 'train'))
    found = audit(of('manifest', tmp_path / 'm.csv'), tmp_path / 'store', lambda line: None)
    assert 'no probe of shortcuts: no exam is in val or test' in '\n'.join(found.looks)


def test_padding_that_tissue_has_too_wants_a_look(tmp_path):
    (tmp_path / 'data' / 'covid').mkdir(parents=True)
    (tmp_path / 'data' / 'normal').mkdir()
    for i in range(2):
        stored = np.random.default_rng(i).integers(-900, 900, (6, 8)).astype('<i2')
        stored[0] = 0
        ct(tmp_path / 'data' / CLASSES[i] / f'{i}.dcm', stored, RescaleIntercept=0, PixelPaddingValue=(None, 0)[i], PatientID='')
    found = audit(of('folder', tmp_path / 'data'), tmp_path / 'store', lambda line: None)
    assert ['1 scan has padding of a value that tissue has too' in line and '(1 covid), as covid/1.dcm' in line
            for line in found.looks].count(True) == 1


def test_of_a_chain_of_near_duplicates_the_two_most_alike_are_named():
    """0 and 1 are in train, 2 and 3 in val; 1 and 2 are most alike, and 3 is alone."""
    angles = np.array([0.0, 0.3, 0.5, 2.0])
    signatures = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert _torn([0, 0, 0, 1], signatures, ['train', 'train', 'val', 'val'], 'abcd') == [(1, 2)]
    assert _torn([0, 0, 0, 1], signatures, ['train', '', 'val', 'val'], 'abcd') == [(0, 2)]
    assert _torn([0, 0, 0, 1], signatures, ['', 'train', 'train', 'val'], 'abcd') == []
    assert _torn([0, 0, 0, 1], signatures, ['train', 'train', 'val', 'val'], 'abbd') == [(0, 2)]  # the copies are said as such
    assert _torn([0, 0, 1, 1], signatures, ['train', 'val', 'train', 'val'], 'aabc') == [(2, 3)]


def test_a_page_goes_where_one_is_and_never_into_the_data(tmp_path, monkeypatch):
    data = of('folder', tmp_path / 'data').data
    (tmp_path / 'data' / 'covid').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert _page('', data) == '.' and _page('out', data) == 'out'
    for inside in ('data', 'data/covid'):
        monkeypatch.chdir(tmp_path / inside)
        assert _page('', data) == '' and _page('out', data) == 'out'
        data.root = '.'
        assert _page('', data) == ''
        data.root = str(tmp_path / 'data')
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('scans, here, page', [
    ('a.npy b.npy', '.', ''), ('covid/a.npy normal/b.npy', '.', ''), ('covid/a.npy normal/b.npy', 'covid', ''), ('covid/s normal/t', 'covid/s', ''),
    ('covid/p/a.npy normal/q/b.npy', 'covid', ''), ('covid/a.npy normal/b.npy::slice=0', 'reports', '.'), ('scans/a.npy scans/b.npy', '.', '.'),
    ('scans/covid/a.npy scans/normal/b.npy', '.', '.'), ('scans/covid/a.npy scans/normal/b.npy', 'scans', ''), ('scans/a.npy scans/b.npy', '..', '.')])
def test_a_page_goes_never_where_scans_of_a_table_lie(tmp_path, monkeypatch, scans, here, page):
    """Which may be beside the table, as where it is written for a folder of scans, or nowhere near."""
    root = tmp_path / 'data'
    root.mkdir()
    (root / here).mkdir(parents=True, exist_ok=True)
    (root / 'm.csv').write_text('\n'.join(['path,label', *(f'{name},covid' for name in scans.split())]))
    monkeypatch.chdir(root / here)
    data = of('manifest', root / 'm.csv').data
    assert _page('', data) == page and _page('out', data) == 'out'


@pytest.mark.parametrize('folder', ['/proc/x/y', '/proc', 'a file', 'a file/x'])
def test_a_folder_that_cannot_be_written_to_is_named_in_a_line(tmp_path, folder):
    (tmp_path / 'a file').touch()
    with pytest.raises(UserError, match='^--store=.*: give a folder that can be written to$'):
        _check_folder('store', str(tmp_path / folder))
    _check_folder('store', str(tmp_path / 'new' / 'one'))
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('arguments, words', [
    (['', '--source=folder'], 'a path that is empty'), (['data,none', '--source=folder,folder'], 'there is nothing at none'),
    (['data', '--out=/proc/x'], '--out=/proc/x: '), (['data', '--store=/proc/x'], '--store=/proc/x: ')])
def test_what_cannot_be_audited_is_told_before_a_scan_is_read(tmp_path, monkeypatch, arguments, words):
    volume(tmp_path / 'data' / 'covid' / 'a.npy', 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('covid_jax.audit.audit', None)
    with pytest.raises(UserError) as caught:
        cli.run(['audit', *arguments])
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_no_page_is_written_into_the_data(tmp_path, monkeypatch, capsys):
    for i in range(2):
        volume(tmp_path / CLASSES[i] / f'{i}.npy', i)
    monkeypatch.chdir(tmp_path)
    cli.run(['audit', str(tmp_path)])
    assert 'no audit.html is written into the data: --out=DIR' in ' '.join(capsys.readouterr().out.split())
    assert not list(tmp_path.rglob('*.html'))


@pytest.mark.parametrize('line, wanted', [
    ('add "|x" to --config.data.classes="(\'a|b\', \'covid\')"', 'add "|x" to --classes="a|b,covid"'),
    ("--config.data.classes=('a',) must be two", '--classes="a" must be two'),
    ('run it with --config.data.workers=1', 'run it with --workers=1')])
def test_hints_are_options_of_the_command(line, wanted):
    assert in_own_words(line) == wanted


def test_a_group_that_a_source_parts_between_splits_is_one_patient_here(tmp_path):
    """As COVID-CT's lists do with an article: training keeps them, and an audit says what that means."""
    exams = [Exam('a', 'X (train)', '', 'covid', 'train', ''), Exam('b', 'X (val)', '', 'covid', 'val', ''), Exam('c', 'Y', '', 'normal', 'train', ''),
             Exam('d', 'Z', '', 'normal', '', '')]
    found = Audit({}, [], [], [], {}, {}, {})
    data = of('manifest', '').data
    placed = _placed([exams], data, found, found.said.append)
    assert [exam.split for exam in placed][:3] == ['train', 'val', 'train'] and placed[3].split  # drawn, as in training
    assert ['1 patient or article is in more than one split: X; give each one split, or take --split=drawn' in line for line in found.spoils] == [True]
    assert found.lists['patients in more than one split'] == [('patient', 'splits'), ('X', 'train and val')]


@pytest.mark.parametrize('positives, negatives, told', [(3, 3, False), (4, 20, False), (12, 12, True)])
def test_six_images_that_a_border_parts_tell_nothing(positives, negatives, told):
    """An AUC of 1 of 3 and 3 images has an interval from 0.54 on; one such order of 20 comes by chance."""
    label = [1] * positives + [0] * negatives
    exams = [Exam(f'{i}', f'{i}', '', CLASSES[of], 'val', '') for i, of in enumerate(label)]
    score = np.array(label, float)
    entry = evidence.auc(Predictions(CLASSES, exams, np.array(label), np.stack([1 - score, score], 1)), 0.95)
    assert entry['value'] == 1 and entry['low'] > 0.5 and _is_above_chance(entry) == told
