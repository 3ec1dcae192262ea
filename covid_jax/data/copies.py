"""One scan twice, as a file or as it is prepared: in two splits, of two classes, of two patients."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

from covid_jax import UserError
from covid_jax.sources.exams import Exam, class_index, class_names
from covid_jax.text import some

LISTED = 10  # pairs of scans that a message names


class Pair(NamedTuple):
    """Two exams of equal content, and the words that are different of them."""

    a: str
    b: str
    words: tuple[str, str]

    def __str__(self) -> str:
        return f'{self.a} ({self.words[0]}) = {self.b} ({self.words[1]})'


def pairs(exams: Sequence[Exam], hashes: Sequence[str], word: Callable[[Exam], str]) -> list[Pair]:
    """Each two exams of equal content of which `word` says different things, of each thing the first exam; one of which it says '' is in
    none. hashes: of their contents, beside them."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)  # content -> {word: the first exam of it}
    for exam, digest in zip(exams, hashes, strict=True):
        if said := word(exam):
            seen[digest].setdefault(said, exam.id)
    return [Pair(a, b, (one, other)) for words in seen.values() for (one, a), (other, b) in combinations(words.items(), 2)]


def of_two_splits(exams: Sequence[Exam], hashes: Sequence[str]) -> list[Pair]:
    """Those in two splits; exams without one are in none."""
    return pairs(exams, hashes, lambda exam: exam.split)


def of_two_classes(exams: Sequence[Exam], hashes: Sequence[str], classes: Sequence[str]) -> list[Pair]:
    """Those of two classes, as declared."""
    names = class_names(classes)
    return pairs(exams, hashes, lambda exam: names[class_index(exam.label, classes)] if exam.label else '')


def of_two_patients(exams: Sequence[Exam], hashes: Sequence[str]) -> list[Pair]:
    """Those of two patients."""
    return pairs(exams, hashes, lambda exam: exam.patient)


def check(exams: Sequence[Exam], hashes: Sequence[str], classes: Sequence[str]) -> None:
    """UserError if the same content is in two splits, or of two classes. exams: with their splits, without one they count for none."""
    used = [(exam, digest) for exam, digest in zip(exams, hashes, strict=True) if exam.split]
    here = [exam for exam, _ in used]
    digests = [digest for _, digest in used]
    equal = 'pairs of equal scans (as files, or as prepared) are'
    if torn := of_two_splits(here, digests):
        raise UserError(f'{len(torn)} {equal} in two splits: {some(torn, LISTED)}; remove one of each, or give both the same patient')
    if torn := of_two_classes(here, digests, classes):
        raise UserError(f'{len(torn)} {equal} of two classes: {some(torn, LISTED)}; mend the label of one, or remove both')


def tell(exams: Sequence[Exam], hashes: Sequence[str], say: Callable[[str], None], before: Sequence[str] = ()) -> None:
    """Says which exams are the same scan under two patients; before: other hashes, by which such pairs were said already."""
    said = of_two_patients(exams, before) if before else []
    if twice := [pair for pair in of_two_patients(exams, hashes) if pair not in said]:
        say(f'{len(twice)} pairs of equal scans are of two patients, as they are named, and count twice: '
            f'{some((f"{pair.a} = {pair.b}" for pair in twice), 3)}; remove one of each, or give both the same patient')
