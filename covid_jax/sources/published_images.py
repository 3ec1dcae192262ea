"""The public data sets of the papers, as they lie on disk once unpacked -> Exams: those of single images.

A source is `name(root, say)`: root is the folder of the data set, say is called with one plain line for each thing a
user should know. Names and small text files are read, never an image. Unless a source says otherwise an id is the path
below root, a patient who is not known is the id, and the split is ''. Case, '-', '_' and spaces of folder names do not
count. UserError of one line for a folder that is missing, misnamed or empty, and for a table that is not what it was.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError
from covid_jax.sources import listing, names
from covid_jax.sources.exams import Exam
from covid_jax.text import count

COVID_CT = {'COVID': {'train': 191, 'val': 60, 'test': 98}, 'NonCOVID': {'train': 234, 'val': 58, 'test': 105}}
COVID_CT_TABLES = {'COVID': ('COVID-CT-MetaInfo', 'File name', 'Patient ID'),
                   'NonCOVID': ('NonCOVID-CT-MetaInfo', 'image name', 'patient id')}
VIEWS = ('PA', 'AP')
BESIDE_MASKS = {'COVID-19': ('covid', 'covid19'), 'normal': ('normal', 'nofindings'),  # what folders of pictures and masks are called
                'pneumonia': ('viralpneumonia', 'pneumonia', 'noncovid')}


def covid_ct(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """Images-processed/{CT_COVID,CT_NonCOVID}/<image>, with Data-split/{COVID,NonCOVID}/{train,val,test}CT_<label>.txt.

    Labels 'COVID', 'NonCOVID'. The splits are the lists; without any every image is given, its split ''. Patients are
    those of COVID-CT-MetaInfo.csv and NonCOVID-CT-MetaInfo.csv where they are in root, else what the names say (names.py);
    a group that the lists tear is a patient for each split, as 'ARTICLE (train)'.
    UserError for a list that is not of the official length, repeats a name, or names an image that is not here.
    """
    root = Path(root)
    layout = 'Images-processed/{CT_COVID,CT_NonCOVID}/<image>'
    place = root
    if 'ctcovid' not in {listing.normalised(entry.name) for entry in listing.visible(root)}:
        ((_, place),) = listing.named_folders(root, ('Images-processed',), layout)
    folders = listing.named_folders(place, {label: (f'CT_{label}',) for label in COVID_CT}, layout)
    files = {label: {path.name: path for path in listing.require_image_files(folder)} for label, folder in folders}
    splits = _covid_ct_splits(root, files, say)
    patients = _covid_ct_patients(root, files, say)
    listed = any(splits.values())
    exams = []
    groups = set()
    for label, paths in files.items():
        for name, path in paths.items():
            if not listed or name in splits[label]:
                split = splits[label].get(name, '')
                group = names.article(name)
                patient = patients[label].get(name, group)
                exams.append(listing.image_exam(root, path, 'COVID-CT', label, split, patient))
                groups.add(group)
    unlisted = sum(map(len, files.values())) - len(exams)
    if unlisted:
        say(f'COVID-CT: {count(unlisted, "image is", "images are")} in no list and left out')
    exams, torn = names.part(exams, groups)
    if torn:
        say(f'COVID-CT: the lists have images of {count(len(torn), "group")} in more than one split{listing.examples(torn)}: kept so with '
            'the lists, whole where patients are drawn')
    return exams


def _covid_ct_splits(root, files, say):
    """{label: {name of an image: split}} of the lists that are here."""
    layout = 'Data-split/{COVID,NonCOVID}/{train,val,test}CT_<label>.txt'
    folder_of = {}
    for _, place in listing.named_folders(root, ('Data-split',), layout, optional=('Data-split',)):
        folder_of = dict(listing.named_folders(place, tuple(COVID_CT), layout, optional=tuple(COVID_CT)))
    splits: dict[str, dict[str, str]] = {label: {} for label in COVID_CT}
    absent = []
    for label, counts in COVID_CT.items():
        wanted = {f'{split}CT_{label}.txt': split for split in counts}
        here = listing.visible(folder_of[label]) if label in folder_of else []
        for path in (path for path in here if path.suffix == '.txt'):
            if path.name not in wanted:
                raise UserError(f'{path} is not a list of COVID-CT: expected {layout}')
            split = wanted.pop(path.name)
            listed = _official_names(path, counts[split], files[label], splits[label])
            splits[label] |= dict.fromkeys(listed, split)
        absent += wanted
    if not any(splits.values()):
        say('COVID-CT: no lists in Data-split: every image is given, without a split')
    elif absent:
        say(f'COVID-CT: the lists {", ".join(absent)} are not here: those splits are absent')
    return splits


def _official_names(path, count, files, before):
    """The names in a list. UserError where they are not `count`, where one is no file, or comes twice here or in `before`."""
    listed = listing.read_lines(path)
    unknown = [name for name in listed if name not in files]
    if unknown:
        raise UserError(f'{path} names {len(unknown)} images that are not here{listing.examples(unknown)}: take list and images '
                        'from one download')
    twice = [name for name, times in Counter([*before, *listed]).items() if times > 1]
    if twice:
        raise UserError(f'{path} names {len(twice)} images a second time{listing.examples(twice)}: take the official lists')
    if len(listed) != count:
        raise UserError(f'{path} names {len(listed)} images, the official list {count}: take that one, or the source '
                        'manifest for splits of your own')
    return listed


def _covid_ct_patients(root, files, say):
    """{label: {name of an image: patient}} of the tables that are here. Some rows leave the '.png' of a name out."""
    patients = {}
    for label, (table, name, patient) in COVID_CT_TABLES.items():
        path = root / f'{table}.csv'
        rows = dict(listing.read_columns(path, name, patient)) if path.exists() else {}
        named = {image: rows.get(image) or rows.get(image.removesuffix('.png')) for image in files[label]}
        patients[label] = {image: f'{label}/{number}' for image, number in named.items() if number}
        if len(patients[label]) < len(named):
            where = path.name if rows else f'{path.name}, which is not here,'
            hint = f'; {table}.xlsx is not read, save it as .csv' if (root / f'{table}.xlsx').exists() else ''
            others = named.keys() - patients[label].keys()
            say(f'COVID-CT: no patient in {where} for {len(others)} of {len(named)} {label} images: '
                f'{names.groups_told(others)}{hint}')
    return patients


def sars_cov_2_ct(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """{COVID,non-COVID}/<image>, labelled so. Patients are not known."""
    root = Path(root)
    exams = [listing.image_exam(root, path, 'SARS-CoV-2-CT', label)
             for label, folder in listing.named_folders(root, ('COVID', 'non-COVID'), '{COVID,non-COVID}/<image>.png')
             for path in listing.require_image_files(folder)]
    say('SARS-CoV-2-CT: no patients are published, each image counts as its own: a random split puts neighbouring '
        'slices of one patient on both sides, and scores come out too high')
    counts = Counter(exam.label for exam in exams)
    paper = {'COVID': 1252, 'non-COVID': 1229 if counts['non-COVID'] == 1229 else 1230}  # the download has one less
    listing.say_other_counts('SARS-CoV-2-CT', counts.elements(), paper, say)
    return exams


def chest_xray(root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """{Covid-19,No_findings,Pneumonia}/<image>, {train,test,val}/{NORMAL,PNEUMONIA}/<image> (Kermany), images/<image>
    with metadata.csv (ieee8023), or <class>/{images,masks}/<image> (COVID-19 Radiography, COVID-QU-Ex), told apart by what is in root.

    Labels 'COVID-19', 'normal', 'pneumonia'. The patient is what the name says (names.py), in the third layout the column
    patientid where it says anything.
    """
    root = Path(root)
    here = {listing.normalised(entry.name) for entry in listing.visible(root)}
    if 'metadata.csv' in here:
        return _ieee8023(root, say)
    if any(listing.normalised(entry.name) == 'images' for _, place in _classes(root) for entry in listing.subfolders(place)):
        return _beside_masks(root, say)
    if here & {'train', 'test'}:
        return _kermany(root, say)
    wanted = {'COVID-19': ('Covid-19',), 'normal': ('No_findings', 'normal'), 'pneumonia': ('Pneumonia',)}
    layout = '{Covid-19,No_findings,Pneumonia}/, {train,test}/{NORMAL,PNEUMONIA}/, <class>/{images,masks}/, or images/ with metadata.csv'
    exams = [listing.image_exam(root, path, 'chest-xray', label, '', names.article(path.name))
             for label, folder in listing.named_folders(root, wanted, layout) for path in listing.require_image_files(folder)]
    say(f'chest X-ray: of {len(exams)} images {names.groups_told([Path(exam.path).name for exam in exams])}')
    labels = defaultdict(set)
    for exam in exams:
        labels[exam.patient].add(exam.label)
    both = sum(len(found) > 1 for found in labels.values())
    say(f'chest X-ray: {both} of {len(labels)} patients are in two classes; the classes come from different '
        'collections, and a classifier can tell the source instead of the disease')
    return exams


def _classes(root):
    """(split, folder of a class), the split '' where root holds classes."""
    splits = {'train', 'val', 'test'}
    for entry in listing.subfolders(root):
        name = listing.normalised(entry.name)
        yield from [(name, place) for place in listing.subfolders(entry)] if name in splits else [('', entry)]


def _beside_masks(root, say):
    """Each picture in images/ is an exam; masks are left out, and so are classes that are none of the three."""
    label_of = {name: label for label, called in BESIDE_MASKS.items() for name in called}
    exams = []
    others = []
    for split, place in _classes(root):
        label = label_of.get(listing.normalised(place.name))
        if label is None:
            others.append(place.relative_to(root).as_posix())
            continue
        for _, folder in listing.named_folders(place, ('images',), '<class>/{images,masks}/<image>'):
            exams += [listing.image_exam(root, path, 'chest-xray', label, split, names.article(path.name))
                      for path in listing.require_image_files(folder)]
    listing.require_some(root, exams, f'folders of classes called {", ".join(label_of)}')
    left_out = f'; {", ".join(others)} are left out, for they are called like none of {", ".join(label_of)}' if others else ''
    say(f'chest X-ray: each of {len(exams)} images beside masks is an exam, masks are not read{left_out}; '
        f'{names.groups_told([Path(exam.path).name for exam in exams])}')
    return exams


def _kermany(root, say):
    say('chest X-ray (Kermany): all are children, none has COVID-19: beside COVID-19 images of adults from '
        'elsewhere a classifier can tell the age instead')
    exams = []
    for split, folder in listing.named_folders(root, ('train', 'test', 'val'), '{train,test,val}', optional=('val',)):
        for label, place in listing.named_folders(folder, ('normal', 'pneumonia'), '{NORMAL,PNEUMONIA}/<image>'):
            for path in listing.require_image_files(place):
                exams.append(listing.image_exam(root, path, 'Kermany', label, split, names.article(path.name)))
    say(f'chest X-ray (Kermany): of {len(exams)} images {names.groups_told([Path(exam.path).name for exam in exams])}')
    return exams


def _ieee8023(root, say):
    files = {path.name: path for _, folder in listing.named_folders(root, ('images',), 'images/ with metadata.csv')
             for path in listing.require_image_files(folder)}
    words = {'covid-19': 'COVID-19', 'no finding': 'normal', 'pneumonia': 'pneumonia'}  # in this order
    columns = ('patientid', 'finding', 'view', 'modality', 'filename')
    exams = []
    left_out = 0
    absent = 0
    for patient, finding, view, modality, name in listing.read_columns(root / 'metadata.csv', *columns):
        found = [label for word, label in words.items() if word in finding.lower()]
        if not found or modality != 'X-ray' or view not in VIEWS:
            left_out += 1
        elif name not in files:
            absent += 1
        else:
            exams.append(listing.image_exam(root, files[name], 'ieee8023', found[0], '', patient or names.article(name)))
    say(f'chest X-ray (ieee8023): {left_out} rows of metadata.csv are left out (another modality, a view that is not '
        f'{" or ".join(VIEWS)}, or another finding), {absent} name an image that is not here')
    return listing.require_unique_ids(root, listing.require_some(root, exams, 'X-rays that metadata.csv names'))
