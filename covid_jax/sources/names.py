"""What the file name of a published image says of where it was taken from: the article, the case or the patient.

Collections of images from articles and case reports call a file after the article, then the page, the figure and the
panel. Two images of one article may be of one patient, so it is the article that must stay whole.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from covid_jax.sources.exams import Exam
from covid_jax.text import count

# The group is what stands in brackets. The first form that a name has counts.
FORMS = tuple(map(re.compile, (
    r'(?:1-s2\.0-|PII)(S[0-9]{15}[0-9X])(?![0-9]).*',  # 1-s2.0-S0929664620300449-gr2_lrg-a, PIIS0140673620303603%8: Elsevier
    r'(.+?)-p[0-9]+-[0-9]+(?![0-9]).*',  # 2020.02.26.20026989-p34-114_1%0: a page of an article, an image of that page
    r'(.+?)\.pdf-.+',  # 1.CXRCTThoraximagesofCOVID-19fromSingapore.pdf-002-fig3a: a page of a file
    r'(.+?)[-_.](?:[Ff]ig-?|f|g)[0-9]+[a-z]?(?![0-9A-Za-z]).*',  # ryct.2020200034.fig5-day0, jkms-35-e79-g001-l-b,
    # nejmc2001573_f1b, all14238-fig-0002-m-e, bjr.20200182.g004, 41591_2020_819_Fig1_HTML.webp-day10: a figure
    r'(lancet-case[0-9]+)[a-z]',  # lancet-case2a: a panel of a case
    r'(auntminnie)-[a-z]-(.+)',  # auntminnie-a-2020_01_28_23_51_6665_2020_01_28_Vietnam_coronavirus: a panel
    r'(figure1-[0-9a-f]{24})-.+',  # figure1-5e75d0940b71e1b702629659-98-right: a case of figure1.com
    r'(covid-19-(?:pneumonia|caso)-[0-9]+)(?:-.+)?',  # covid-19-pneumonia-24-day12, covid-19-caso-70-1-PA: a numbered case
    r'(covid-19-.+?)(?:-(?:day-?[0-9]+|PA|pa|AP|ap|L|l|admission|prior))?',  # covid-19-pneumonia-rapidly-progressive-admission
    r'([0-9]{8})_[0-9]{3}',  # 00001362_014: a patient of ChestX-ray8 of the NIH
    r'(person[0-9]+_(?:bacteria|virus))_[0-9]+',  # person1_virus_6: a patient of Kermany
    r'([0-9]+)%[0-9]+',  # 39%8: a panel of a numbered figure of COVID-CT
)))


def article(name: str) -> str:
    """The article, case or patient that the file name of an image names, the same for all images of it; '' where it names
    none, or has a form that is not known here: nothing is guessed."""
    stem = Path(name).stem
    for form in FORMS:
        if found := form.fullmatch(stem):
            return '-'.join(found.groups())
    return ''


def groups_told(names: Collection[str]) -> str:
    """How many groups the images of these file names are, in words."""
    groups = [article(name) for name in names]
    named = [group for group in groups if group]
    told = f'by their names {len(named)} are {count(len(set(named)), "group")} (an article, a figure, a case or a patient each)'
    alone = len(groups) - len(named)
    return f'{told}, {alone} whose names say no more are groups of their own' if alone else told


def part(exams: list[Exam], groups: Collection[str]) -> tuple[list[Exam], list[str]]:
    """The exams, with a patient for each split in place of a group that the source has put into several, so that the
    source's splits can be kept; and those groups. `whole` undoes it. groups: the patients that may be parted so."""
    splits = defaultdict(set)
    for exam in exams:
        splits[exam.patient].add(exam.split)
    torn = sorted(group for group in groups if len(splits[group]) > 1)
    parted = [exam._replace(patient=f'{exam.patient} ({exam.split})') if exam.patient in torn else exam for exam in exams]
    return parted, torn


def whole(exam: Exam) -> Exam:
    """The exam without the split that its source gives it, and of the whole group where `part` parted it."""
    return exam._replace(split='', patient=exam.patient.removesuffix(f' ({exam.split})'))
