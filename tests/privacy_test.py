"""The real command on DICOM files that carry a person: no file it leaves and no line it prints holds any of it."""

import hashlib
import subprocess

import numpy as np
import pydicom
from dicoms import ct
from main_test import SMALL, command, environment

SECRETS = ('Hannelore', 'Mustermann', 'PAT-4711-99', 'ACC-0815-77', '19480229', 'Lindenallee', 'born on a leap day')


def scan(folder, seed, patient, **tags):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for n in range(1, 6):
        ct(folder / f'{n}.dcm', rng.integers(0, 2000, (12, 12)).astype('<u2'), 2.0 * n, n,
           **{'SeriesInstanceUID': f'1.2.3.{seed}', 'PatientName': 'Mustermann^Hannelore', 'PatientID': patient,
              'PatientBirthDate': '19480229', 'AccessionNumber': 'ACC-0815-77', 'PatientAddress': 'Lindenallee 1',
              'SeriesDescription': 'Mustermann, born on a leap day', 'ImageComments': 'PAT-4711-99',
              'ReferringPhysicianName': 'Hannelore', 'StudyDescription': 'Hannelore', **tags})
    return folder


def hospital(root):
    """12 readable scans of 11 patients, four that cannot be read for four reasons, and what is no scan."""
    for i in range(12):
        scan(root / ('covid' if i % 2 else 'normal') / f'scan{i}', i, 'PAT-4711-99' if i in (3, 5) else f'PAT-4711-99-{i}')
    scan(root / 'covid' / 'gap', 20, 'PAT-4711-99-20')
    (root / 'covid' / 'gap' / '3.dcm').unlink()
    scan(root / 'covid' / 'cut', 21, 'PAT-4711-99-21')
    whole = (root / 'covid' / 'cut' / '2.dcm').read_bytes()
    (root / 'covid' / 'cut' / '2.dcm').write_bytes(whole[:-50])
    scan(root / 'normal' / 'two', 22, 'PAT-4711-99-22')
    ct(root / 'normal' / 'two' / '9.dcm', np.zeros((12, 12), '<u2'), 99, 9, SeriesInstanceUID='1.2.3.99',
       PatientName='Mustermann^Hannelore')
    scan(root / 'normal' / 'odd', 23, 'PAT-4711-99-23', Modality='Hannelore')
    (root / 'normal' / 'scan.xyz').write_bytes(b'of a format that is not read')
    return root


def test_nothing_of_the_person_is_in_any_output(root, tmp_path):
    with pydicom.config.disable_value_validation():
        data, workdir = hospital(tmp_path / 'hospital'), tmp_path / 'run'
    small = [arg for arg in SMALL if 'phantom' not in arg and 'epochs' not in arg]
    result = subprocess.run(command(root, workdir, *small, '--config.train.epochs=1', '--config.eval.tta=0', '--config.data.source=folder',
                                    f'--config.data.root={data}', "--config.data.held_out=('covid/scan3','normal/scan0')", config='configs/cmc.py:baseline,size=small'),
                            env=environment() | {'PYTHONWARNINGS': 'default'}, text=True, capture_output=True, timeout=400,
                            cwd=root)
    assert result.returncode == 0, result.stderr
    assert '16 DICOM scans of 15 patients, by their PatientID' in result.stdout
    quarantine = (workdir / 'quarantine.csv').read_text()
    assert [row.split(',')[0] for row in quarantine.splitlines()[1:]] == ['covid/cut', 'covid/gap', 'normal/odd', 'normal/two', 'normal/scan.xyz']
    assert 'slices 2 and 4 are 4.0 mm apart' in quarantine and '1.2.3.99' in quarantine and 'cut off' in quarantine

    predictions = (workdir / 'predictions.csv').read_text()
    assert predictions.count('covid/scan3,covid/scan3,') == predictions.count('covid/scan5,covid/scan3,') == 1
    digests = [hashlib.new(name, text.encode()).hexdigest() for name in ('md5', 'sha1', 'sha256')
               for text in ('PAT-4711-99', 'PAT-4711-99\0', 'Mustermann^Hannelore')]
    files = [path for path in workdir.rglob('*') if path.is_file()]
    assert len(files) > 20
    for where, content in [('stdout', result.stdout.encode()), ('stderr', result.stderr.encode()),
                           *((str(path), path.read_bytes()) for path in files)]:
        for word in (*SECRETS, *digests):
            assert word.encode() not in content and word.encode('utf-16-le') not in content, (where, word)
            assert word not in where
