"""Thumbnails of prepared scans for a page, each of the height and width that its scan has."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from covid_jax.data.parts import Seen
from covid_jax.sources.exams import Exam

PICTURES = 12  # thumbnails of a class, and of what is alike
SIDE = 128  # pixels of the longer side of a thumbnail
LONGEST = 4  # to one: what is longer is shown so


def samples(exams: Sequence[Exam], words: Sequence[str], order: Sequence[str], thumbnails: Sequence[np.ndarray],
            seen: Mapping[str, Seen]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """{word: captions and thumbnails} of some exams of each word, evenly taken from all of them.

    words: one for each exam; order: of the words; thumbnails: uint8 [1, 64, 64, 1] each, beside the exams; seen: exam
    id -> what its scan is.
    """
    found = {}
    for word in (word for word in order if word in words):
        of = [i for i, other in enumerate(words) if other == word]
        chosen = np.linspace(0, len(of) - 1, min(len(of), PICTURES)).astype(int)
        found[f'{word}: {len(chosen)} of {len(of)}'] = [picture(exams[of[k]], thumbnails[of[k]], seen) for k in chosen]
    return found


def picture(exam: Exam, thumbnail: np.ndarray, seen: Mapping[str, Seen], word: str = '') -> tuple[str, np.ndarray]:
    """The caption and the thumbnail of an exam, uint8 [height, width], of the height and width that the scan has in mm,
    or else in pixels; arguments as of `samples`. word: what is said of it in the caption."""
    _, height, width = seen[exam.id].shape
    _, down, across = seen[exam.id].spacing or (1, 1, 1)
    sides = np.array([width * across, height * down])
    sides = np.maximum(sides, sides.max() / LONGEST)
    size = np.rint(SIDE * sides / sides.max()).astype(int)
    image = Image.fromarray(thumbnail[0, :, :, 0]).resize(size.tolist(), Image.Resampling.BILINEAR)
    return f'{exam.id} ({word})' if word else exam.id, np.asarray(image)
