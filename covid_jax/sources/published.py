"""The public data sets of the papers, as they lie on disk once unpacked -> Exams: those of whole scans.

A source is `name(root, say)`: root is the folder of the data set, say is called with one plain line for each thing a
user should know. Names and small text files are read, never an image. Unless a source says otherwise an id is the path
below root, a patient who is not known is the id, and the split is ''. Case, '-', '_' and spaces of folder names do not
count. UserError of one line for a folder that is missing, misnamed or empty, and for a table that is not what it was.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import arrays, metaimage
from covid_jax.scans.scan import blame
from covid_jax.sources import listing
from covid_jax.sources.exams import Exam
from covid_jax.text import some

NIFTI = '.nii.gz'
MASK = '_mask.nii.gz'  # in place of it, of an exam's lungs
FEWEST_SLICES = 20  # that a scan of CC-CCII must have
SPLITS = {'train': ('train', 'train_cov19d'), 'val': ('val', 'validation', 'validation_cov19d'),
          'test': ('test', 'test_cov19d')}
COV19_CT_DB = {'train covid': 690, 'train non-covid': 870, 'val covid': 165, 'val non-covid': 209}
COVID_CT_MD = {'COVID-19': 169, 'CAP': 60, 'Normal': 76}
SUBJECTS = {'p': 'COVID-19', 'cap': 'CAP', 'n': 'Normal', 'normal': 'Normal'}


def cov19_ct_db(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """{train,val}/{covid,non-covid}/<scan> and, where it is there, test/<scan>; a scan is a folder of slices or a .npy.

    Labels 'covid', 'non-covid', and '' in test. An id is <split>/<label>/<scan>, without the '.npy' and whatever the
    folders of the splits are called (upstream: train_cov19d, validation_cov19d). Patients are not known.
    """
    root = Path(root)
    layout = '{train,val}/{covid,non-covid}/<scan> and, if you have it, test/<scan>'
    exams = []
    for split, folder in listing.named_folders(root, SPLITS, layout, optional=('test',)):
        labelled = split != 'test' or 'covid' in {listing.normalised(entry.name) for entry in listing.visible(folder)}
        classes = listing.named_folders(folder, ('covid', 'non-covid'), layout) if labelled else [('', folder)]
        for label, place in classes:
            scans = [entry for entry in listing.visible(place) if entry.is_dir() or entry.suffix == '.npy']
            for scan in listing.require_some(place, scans, 'scans'):
                name = '/'.join(filter(None, (split, label, scan.name.removesuffix('.npy'))))
                exams.append(Exam(name, name, 'COV19-CT-DB', label, split, str(scan)))
    say('COV19-CT-DB: no patients are published, each scan counts as its own')
    labels = (f'{exam.split} {exam.label}' for exam in exams if exam.split != 'test')
    listing.say_other_counts('COV19-CT-DB', labels, COV19_CT_DB, say)
    return listing.require_unique_ids(root, exams)


def cc_ccii(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """{NCP,CP,Normal}/<patient>/<scan>/<slice>, labelled so. A scan of fewer than 20 slices is left out, with a note.

    A patient is <class>/<number>. With unzip_filenames.csv in root a note says which scans are incomplete.
    """
    root = Path(root)
    exams = []
    slices = {}  # id -> how many
    layout = '{NCP,CP,Normal}/<patient>/<scan>/<slice>'
    for label, folder in listing.named_folders(root, ('NCP', 'CP', 'Normal'), layout):
        scans = [scan for patient in listing.subfolders(folder) for scan in listing.subfolders(patient)]
        for scan in listing.require_some(folder, scans, 'folders <patient>/<scan>'):
            patient = f'{label}/{scan.parent.name}'
            name = f'{patient}/{scan.name}'
            exams.append(Exam(name, patient, 'CC-CCII', label, '', str(scan)))
            slices[name] = len(listing.image_files(scan))
    complete = [exam for exam in exams if slices[exam.id] >= FEWEST_SLICES]
    if len(complete) < len(exams):
        say(f'CC-CCII: {len(exams) - len(complete)} of {len(exams)} scans have fewer than {FEWEST_SLICES} slices and are '
            'left out')
    table = root / 'unzip_filenames.csv'
    if table.exists():
        rows = listing.read_columns(table, 'label', 'patient_id', 'scan_id', 'n_slice')
        listed = {f'{label}/{patient}/{scan}': count for label, patient, scan, count in rows}
        other = [name for name, count in listed.items() if name in slices and str(slices[name]) != count]
        say(f'CC-CCII: of {len(listed)} scans in {table.name} {len(listed.keys() - slices.keys())} are not here and '
            f'{len(other)} have another number of slices{listing.examples(other)}')
    return listing.require_unique_ids(root, listing.require_some(root, complete, f'scans of at least {FEWEST_SLICES} slices'))


def pos_neg(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """{pos,neg}/<patient>/<exam>.nii.gz, labelled 'covid' and 'noncovid'; beside an exam may lie the mask of its lungs, called
    <exam>_mask.nii.gz. A patient is <pos or neg>/<patient>, an exam <pos or neg>/<patient>/<exam>. Other files are left out, and said."""
    root = Path(root)
    exams = []
    others = []
    layout = '{pos,neg}/<patient>/<exam>.nii.gz'
    for (name, folder), label in zip(listing.named_folders(root, ('pos', 'neg'), layout), ('covid', 'noncovid'), strict=True):
        files = [path for patient in listing.visible(folder) for path in (listing.visible(patient) if patient.is_dir() else [patient])]
        scans = [path for path in files if path.parent != folder and path.name.endswith(NIFTI) and not path.name.endswith(MASK)]
        masks = {path.with_name(path.name.removesuffix(NIFTI) + MASK) for path in scans}.intersection(files)
        others += sorted(path.relative_to(root).as_posix() for path in {*files} - {*scans} - masks)
        for scan in listing.require_some(folder, scans, 'files <patient>/<exam>.nii.gz'):
            mask = scan.with_name(scan.name.removesuffix(NIFTI) + MASK)
            patient = f'{name}/{scan.parent.name}'
            address = f'{scan}::lungs={mask.name}' if mask in masks else str(scan)
            exams.append(Exam(f'{patient}/{scan.name.removesuffix(NIFTI)}', patient, 'default', label, '', address))
        say(f'{folder}: {len(masks)} of {len(scans)} exams have a mask of their lungs beside them; of the others lungs are looked for')
    if others:
        say(f'{root}: {len(others)} files are no exam and no mask of one, as {others[0]}: {layout}')
    return exams


def covid_ct_md(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """<subject>.npz with the keys hu and label, in root or root/volumes; or, where there are none, folders of DICOM
    files called {COVID-19,CAP,Normal} subjects/<subject> or <P001|cap001|normal001>, in root or root/dicom.

    Labels 'COVID-19', 'CAP', 'Normal'; of an .npz what it says. The subject is the id and the patient.
    """
    root = Path(root)
    volumes = listing.glob(root, 'volumes/*.npz') or listing.glob(root, '*.npz')
    place = root / 'dicom' if (root / 'dicom').is_dir() else root
    subjects = _subjects(place, say)
    if volumes:
        if subjects:
            say(f'COVID-CT-MD: {len(volumes)} .npz volumes are read, the DICOM files of {len(subjects)} subjects in '
                f'{place} are not: to read them, put them into a root of their own')
        subjects = [(_stored_label(path), path) for path in volumes]
    if not subjects:
        raise UserError(f'no .npz volumes and no folders of subjects in {place} ({listing.found_in(place)}): expected '
                        '{COVID-19,CAP,Normal} subjects/<subject>, {P001,cap001,normal001}/ or <subject>.npz')
    listing.say_other_counts('COVID-CT-MD', (label for label, _ in subjects), COVID_CT_MD, say)
    named = [(path.name.removesuffix('.npz'), label, path) for label, path in subjects]
    exams = [Exam(name, name, 'COVID-CT-MD', label, '', str(path)) for name, label, path in named]
    return listing.require_unique_ids(root, exams)


def covid_ct_md_slices(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """The axial slices of <subject>.npz with the keys hu, label and slice_label (1: infected, 0: not, -1: unlabelled), in root or
    root/volumes.

    Labels as of covid_ct_md. Of COVID-19 subjects the slices labelled infected alone, of the others every slice, whatever its own
    label says. An id is <subject>::slice=N, N from 0; the patient is the subject.
    """
    root = Path(root)
    volumes = listing.glob(root, 'volumes/*.npz') or listing.glob(root, '*.npz')
    exams = []
    left_out = 0
    for path in listing.require_some(root, volumes, '.npz volumes of COVID-CT-MD'):
        subject = path.name.removesuffix('.npz')
        label = _stored_label(path)
        if label not in COVID_CT_MD:
            raise UserError(f'{path} has the label {label!r}: expected {", ".join(COVID_CT_MD)}')
        of_slices = _slice_labels(path)
        taken = [number for number, of_slice in enumerate(of_slices) if label != 'COVID-19' or of_slice == 1]
        left_out += len(of_slices) - len(taken)
        exams += [Exam(f'{subject}::slice={number}', subject, 'COVID-CT-MD', label, '', f'{path}::slice={number}')
                  for number in taken]
    taken_of_sick = sum(exam.label == 'COVID-19' for exam in exams)
    say(f'COVID-CT-MD: of {taken_of_sick + left_out} slices of COVID-19 subjects {taken_of_sick} are labelled infected, the other '
        f'{left_out} are left out; of the other subjects every slice is taken, also those above and below the lungs')
    return listing.require_unique_ids(root, listing.require_some(root, exams, 'slices of these'))


def _subjects(place, say):
    """(label, folder) of every subject that has files."""
    folders = listing.subfolders(place)
    if any(listing.normalised(folder.name).endswith('subjects') for folder in folders):
        wanted = {label: (f'{label} subjects',) for label in COVID_CT_MD}
        classes = listing.named_folders(place, wanted, '{COVID-19,CAP,Normal} subjects/<subject>')
        found = [(label, entry) for label, folder in classes
                 for entry in listing.require_some(folder, listing.subfolders(folder), 'subjects')]
    else:
        named = [(re.fullmatch('(p|cap|n|normal)[0-9]+', folder.name.lower()), folder) for folder in folders]
        found = [(SUBJECTS[match[1]], folder) for match, folder in named if match]
        other = [folder.name for match, folder in named if not match]
        if found and other:
            say(f'COVID-CT-MD: {len(other)} folders are not called like a subject and are left out{listing.examples(other)}')
    for _, folder in found:
        listing.require_some(folder, listing.visible(folder), 'DICOM files')
    return found


def _stored_label(path):
    with blame(path), zipfile.ZipFile(path) as archive:
        return str(arrays.member(archive, 'label', kinds='U', ndims=(0,), limit=1))


def _slice_labels(path):
    """One number for each slice of the volume, from the first."""
    with blame(path), zipfile.ZipFile(path) as archive:
        found = arrays.member(archive, 'slice_label', kinds='i', ndims=(1,)).tolist()
        if not {*found} <= {-1, 0, 1}:
            raise ValueError(f'slice_label holds {some(sorted({*found} - {-1, 0, 1}), 3)}, it may be 1, 0 or -1 (unlabelled)')
        return found


def luna16(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """A folder of <series>.mhd_<slice>.png; or <series>.mhd with their .raw, in root or root/subset*.

    Of .mhd files the axial slice through the centre of each nodule of annotations.csv (in root, root/CSVFILES or beside
    the scans), its id ending in '::slice=N'; without that table, whole scans. The label is '', the patient the series.
    """
    root = Path(root)
    scans = listing.glob(root, 'subset*/*.mhd') or listing.glob(root, '*.mhd')
    pictures = listing.image_files(root)
    named = [(re.fullmatch(r'(.+)\.mhd_[0-9]+\.\w+', path.name), path) for path in pictures]
    slices = [(match[1], path.name, path) for match, path in named if match]
    if bool(scans) == bool(slices):
        raise UserError(f'{root} holds {len(scans)} .mhd scans and {len(slices)} slices <series>.mhd_<slice>.png '
                        f'({listing.found_in(root)}): expected subset*/<series>.mhd or a folder of slices, one of the two')
    if len(slices) < len(pictures):
        say(f'LUNA16: {len(pictures) - len(slices)} images are not called <series>.mhd_<slice>.png and are left out')
    places = (root, root / 'CSVFILES', *sorted({scan.parent for scan in scans}))
    tables = [place / 'annotations.csv' for place in places if (place / 'annotations.csv').is_file()]
    if scans:
        slices = [(scan.stem, scan.relative_to(root).as_posix(), scan) for scan in scans]
        if tables:
            slices = _nodules(tables[0], slices, say)
        else:
            say('LUNA16: no annotations.csv in root or root/CSVFILES: whole scans are given, not slices of nodules')
    return listing.require_unique_ids(root, [Exam(name, series, 'LUNA16', '', '', str(path)) for series, name, path in slices])


def _nodules(table, scans, say):
    """(series, id, address) of the slice through the centre of each nodule; two in one slice are one."""
    here = {series for series, _, _ in scans}
    depths = defaultdict(list)  # series -> z of the centres of its nodules
    elsewhere = 0
    for series, z in listing.read_columns(table, 'seriesuid', 'coordZ'):
        elsewhere += series not in here
        depths[series].append(z)
    slices = []
    for series, name, path in scans:
        if series in depths:
            origin, spacing, depth = _geometry(path)
            with blame(f'{table}, {series}'):
                numbers = {round((float(z) - origin) / spacing) for z in depths[series]}
            if not all(0 <= number < depth for number in numbers):
                raise UserError(f'{table}: a nodule of {series} is outside the {depth} slices of {path}')
            slices += [(series, f'{name}::slice={number}', f'{path}::slice={number}') for number in sorted(numbers)]
    say(f'LUNA16: {len(slices)} slices with nodules; {len(here - depths.keys())} of {len(here)} scans have none, '
        f'{elsewhere} nodules are of scans that are not here')
    return listing.require_some(table, slices, 'nodules of the scans that are here')


def _geometry(path):
    """(z of the first slice, z between slices, slices) of a .mhd, the z axis being the patient's."""
    with blame(path):
        return metaimage.geometry(path)
