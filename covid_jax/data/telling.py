"""What goes with the label and is no disease: which files are not read, Hounsfield units beside grey values, kinds of
files."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from scipy.stats import fisher_exact

from covid_jax.data import remarks
from covid_jax.data.parts import Seen
from covid_jax.sources.exams import Exam, class_index, class_names
from covid_jax.sources.files import Facts, kind
from covid_jax.sources.unread import LOST, Unread, of_kind
from covid_jax.text import count

UNEVEN = 0.05  # by which a share of one class differs from that of another where it tells the label
MOST = 0.5  # the same of Hounsfield units, however few: most of one class have them, and most of another have not
BY_CHANCE = 0.001  # the probability below which files of one kind are not dealt to the classes by chance
NO_LABEL = 'without a label'

Say = Callable[[str], None]


def unread(exams: Sequence[Exam], broken: Mapping[str, str], left: Sequence[Unread], spoils: Say, looks: Say) -> None:
    """Says how much of each class is not read: to `spoils` where the shares of two classes differ, else to `looks`.
    Masks, and what speaks of scans, do not count. broken: exam id -> why it cannot be prepared; left: what is no
    exam."""
    lost = of_kind(left, LOST)
    not_taken = Counter(one.label or NO_LABEL for one in lost)
    total = Counter(exam.label or NO_LABEL for exam in exams) + not_taken
    gone = Counter(exam.label or NO_LABEL for exam in exams if exam.id in broken) + not_taken
    if gone:
        shares = [gone[label] / total[label] for label in total]
        said = ', '.join(f'{label} {gone[label]} of {total[label]}' for label in sorted(total))
        say = spoils if max(shares) - min(shares) > UNEVEN else looks
        say(f'{count(gone.total(), "file or scan is", "files or scans are")} not read ({said}): what is left out may '
            'tell the label; convert them, or move them away')


def units(exams: Sequence[Exam], seen: Mapping[str, Seen], classes: Sequence[str], spoils: Say, looks: Say) -> None:
    """Says that Hounsfield units are beside grey values: to `spoils` where they go with the class, in shares that differ by half or by more
    than chance, else to `looks`. seen: exam id -> what its scan is; classes: as declared."""
    units = defaultdict(Counter)
    for exam in exams:
        if exam.label:
            units[class_index(exam.label, classes)][seen[exam.id].hounsfield] += 1
    shares = [of[True] / of.total() for of in units.values()]
    tells = len(shares) > 1 and (max(shares) - min(shares) >= MOST or _tells(True, units))
    remarks.two_kinds(exams, seen, classes, spoils if tells else looks)


def kinds_of_files(exams: Sequence[Exam], facts: Sequence[Facts], classes: Sequence[str], say: Say) -> None:
    """Says which formats and colours of files one class has and another has not, or has by more than chance. facts:
    beside the exams; classes: as declared."""
    names = class_names(classes)
    of_class = defaultdict(Counter)
    for exam, fact in zip(exams, facts, strict=True):
        if exam.label:
            of_class[names[class_index(exam.label, classes)]][kind(fact)] += 1
    if len(of_class) < 2:
        return
    apart = _are_apart(of_class.values())
    telling = [name for name in sorted(set(chain.from_iterable(of_class.values()))) if apart or _tells(name, of_class)]
    if telling:
        rows = sorted(of_class.items())
        said = [f'{name}: {", ".join(f"{label} {of[name]} of {of.total()}" for label, of in rows)}' for name in telling]
        say(f'the kind of file goes with the class ({"; ".join(said)}): all kinds become the same grey, but what a kind '
            'did to the picture, as compression does, stays in it')


def _are_apart(counts):
    """Whether no kind is of two classes, of each of which there are several files."""
    kinds = list(chain.from_iterable(counts))
    return len(set(kinds)) == len(kinds) and all(of.total() > 1 for of in counts)


def _tells(name, of_class):
    """Whether a class has scans of a kind more or less often than the others together, by more than UNEVEN and more
    than chance."""
    whole = sum(of_class.values(), Counter())
    for here in of_class.values():
        others = whole - here
        table = [[of[name], of.total() - of[name]] for of in (here, others)]
        shares = [yes / (yes + no) for yes, no in table]
        if abs(shares[0] - shares[1]) > UNEVEN and fisher_exact(table)[1] < BY_CHANCE:
            return True
    return False
