"""Where exams come from: the user's own folders and tables, the phantoms, and whatever mix of data sets a config names.

A source is a function of a root and of `say`, which is called with a line for each thing that a user should know; it
returns a list of Exam. published.py and published_images.py have those of the papers.
"""

import difflib
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.sources import published, published_images
from covid_jax.sources.exams import Exam, class_index
from covid_jax.sources.folders import folder, holds_scans, places_of, unread_in
from covid_jax.sources.listing import find_listed, normalised
from covid_jax.sources.manifests import manifest
from covid_jax.sources.phantoms import phantoms
from covid_jax.sources.unread import Unread, beside, without_masks

SOURCES = {'folder': folder, 'manifest': manifest, 'cov19_ct_db': published.cov19_ct_db, 'cc_ccii': published.cc_ccii,
           'pos_neg': published.pos_neg, 'covid_ct_md': published.covid_ct_md,
           'covid_ct_md_slices': published.covid_ct_md_slices, 'luna16': published.luna16, 'covid_ct': published_images.covid_ct,
           'sars_cov_2_ct': published_images.sars_cov_2_ct, 'chest_xray': published_images.chest_xray}


def check(data: ConfigDict) -> None:
    """UserError for a source of no such name, for a root that is missing or too many, and for a list that is not there:
    what can be known before anything is listed."""
    for name, root in _named(data):
        if name not in ('phantom', *SOURCES):
            names = ['phantom', *SOURCES]
            spelt = {normalised(other): other for other in names}
            nearest = spelt[difflib.get_close_matches(normalised(name), spelt, n=1, cutoff=0)[0]]
            raise UserError(f'no data source {name!r}, did you mean {nearest!r}? There are {", ".join(names)}')
        if name != 'phantom' and not (root and os.path.exists(root)):
            where = f'there is nothing at {root}' if root else 'no folder is given'
            raise UserError(f'data source {name!r}: {where}: set --config.data.root=..., of a stage that has its own data '
                            '--config.STAGE.data.root=...')
        if name == 'phantom' and root:
            raise UserError(f'the phantom is made, not read: --config.data.root={root} needs --config.data.source, for example '
                            'folder or manifest')
    for field, path in (('exclude', data.exclude), ('include', data.include)):
        if path and not os.path.isfile(path):
            raise UserError(f'--config.data.{field}={path}: no such file')


def parts_of(data: ConfigDict, say: Callable[[str], None] = print) -> list[list[Exam]]:
    """A list of exams for each source of a config's data section, which `check` passes; its exclusion list holds for all.

    Several sources, with commas between them and between their roots, are sites of one data set: ids and patients then
    start with the site, or with the root's name where the source names no site. What its name calls the mask of a scan beside it is no
    exam.
    """
    return listed(data, say)[0]


def listed(data: ConfigDict, say: Callable[[str], None] = print) -> tuple[list[list[Exam]], list[Unread]]:
    """The exams as `parts_of` has them; and what is none: masks, and what lies in the folders of classes of any source but tables and
    phantoms."""
    check(data)
    pairs = _named(data)
    parts = [_one_source(name, root, data, say) for name, root in pairs]
    left = [_beside(name, root, part) for (name, root), part in zip(pairs, parts, strict=True)]
    if len(parts) > 1:
        sites = [_site(exams, root) for exams, (_, root) in zip(parts, pairs, strict=True)]
        if len(set(sites)) < len(sites):
            raise UserError(f'two sources are both called {max(sites, key=sites.count)!r}: rename the file or folder of one, '
                            'or put both into one manifest')
        parts = [[_of_site(exam, site) for exam in exams] for exams, site in zip(parts, sites, strict=True)]
        left = [[one._replace(id=f'{site}/{one.id}') for one in of] for of, site in zip(left, sites, strict=True)]
    if data.exclude:
        excluded = _excluded(list(chain.from_iterable(parts)), data.exclude, say)
        parts = [[exam for exam in part if exam.id not in excluded] for part in parts]
    kept, masks = zip(*map(without_masks, parts), strict=True)
    return list(kept), list(chain.from_iterable([*left, *masks]))


def told(root: Path | str, classes: Sequence[str]) -> str:
    """The source that a path is by its looks, '' where that cannot be told: 'manifest' for a CSV file, 'folder' for folders of classes, or
    such of splits, that are called like declared labels and hold scans themselves."""
    root = Path(root)
    if root.is_file():
        return 'manifest' if root.suffix.lower() == '.csv' else ''
    try:
        places = [place for _, place in places_of(root)]
        for place in places:
            class_index(place.name, classes)
    except UserError:
        return ''
    return 'folder' if any(map(holds_scans, places)) else ''


def _named(data):
    """(name, root) of each source."""
    names = data.source.split(',')
    roots = data.root.split(',') if len(names) > 1 else [data.root]
    if len(names) != len(roots):
        raise UserError(f'--config.data.source names {len(names)} sources and --config.data.root {len(roots)} roots: '
                        'give each source its root, with commas between them')
    return list(zip(names, roots, strict=True))


def _excluded(exams, path, say):
    excluded, remark = find_listed(exams, path)
    say(f'{path}: {len(excluded)} of {len(exams)} exams are left out; {remark}')
    return excluded


def _one_source(name, root, data, say):
    if name == 'phantom':
        return phantoms(**data.phantom)
    return SOURCES[name](Path(root), say)


def _beside(name, root, part):
    if name in ('phantom', 'manifest'):
        return []
    return unread_in(Path(root)) if name == 'folder' else beside(Path(root), part)


def _site(exams, root):
    """What a source among others is called: its one site, or its root."""
    sites = {exam.site for exam in exams} - {'default'}
    return sites.pop() if len(sites) == 1 else Path(root).stem or 'phantom'


def _of_site(exam, site):
    return exam._replace(id=f'{site}/{exam.id}', patient=f'{site}/{exam.patient}',
                         site=site if exam.site == 'default' else exam.site)
