"""One scan twice, as a file or as it is prepared: in two splits, of two classes, of two patients."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from covid_jax import UserError
from covid_jax.sources.exams import Exam, class_index, class_names
from covid_jax.text import count, some

LISTED = 10  # scans that a message names


class Copies(NamedTuple):
    """Exams of equal content, two or more, and of each the word that is not the same of all of them."""

    exams: tuple[str, ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        named = zip(self.exams, self.words, strict=True)
        return ' = '.join(name if word == name else f'{name} ({word})' for name, word in named)


def copies(exams: Sequence[Exam], hashes: Sequence[str], word: Callable[[Exam], str]) -> list[Copies]:
    """All exams of each content of which `word` says different things; an exam of which it says '' counts for none.
    hashes: of their contents, beside them."""
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)  # content -> exams and their words
    for exam, digest in zip(exams, hashes, strict=True):
        if said := word(exam):
            seen[digest].append((exam.id, said))
    return [Copies(*zip(*of, strict=True)) for of in seen.values() if len({said for _, said in of}) > 1]


def of_two_splits(exams: Sequence[Exam], hashes: Sequence[str]) -> list[Copies]:
    """Those in two splits; exams without one are in none."""
    return copies(exams, hashes, lambda exam: exam.split)


def of_two_classes(exams: Sequence[Exam], hashes: Sequence[str], classes: Sequence[str]) -> list[Copies]:
    """Those of two classes, as declared."""
    names = class_names(classes)
    return copies(exams, hashes, lambda exam: names[class_index(exam.label, classes)] if exam.label else '')


def of_two_patients(exams: Sequence[Exam], hashes: Sequence[str]) -> list[Copies]:
    """Those of two patients."""
    return copies(exams, hashes, lambda exam: exam.patient)


def check(exams: Sequence[Exam], hashes: Sequence[str], classes: Sequence[str]) -> None:
    """UserError if the same content is in two splits, or of two classes. exams: with their splits, without one they
    count for none."""
    used = [(exam, digest) for exam, digest in zip(exams, hashes, strict=True) if exam.split]
    here = [exam for exam, _ in used]
    digests = [digest for _, digest in used]
    equal = 'here more than once (equal as files, or as they are prepared),'
    if torn := of_two_splits(here, digests):
        raise UserError(f'{count(len(torn), "scan is", "scans are")} {equal} in several splits: {some(torn, LISTED)}; keep '
                        'one of each, or give all the same patient')
    if torn := of_two_classes(here, digests, classes):
        raise UserError(f'{count(len(torn), "scan is", "scans are")} {equal} of several classes: {some(torn, LISTED)}; mend '
                        'the labels, or remove them all')


def tell(exams: Sequence[Exam], hashes: Sequence[str], say: Callable[[str], None], before: Sequence[str] = ()) -> None:
    """Says which exams are the same scan under two patients; before: other hashes, by which such pairs were said
    already."""
    said = of_two_patients(exams, before) if before else []
    if several := [of for of in of_two_patients(exams, hashes) if of not in said]:
        say(f'{count(len(several), "scan is", "scans are")} here more than once, of several patients, as these are named, '
            f'and count as often: {some((" = ".join(of.exams) for of in several), 3)}; keep one of each, '
            'or give all the same patient')
