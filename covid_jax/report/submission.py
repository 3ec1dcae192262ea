"""The two files of the COV19-CT-DB challenge."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from covid_jax.metrics.classification import decide
from covid_jax.predictions import Predictions
from covid_jax.runtime import files
from covid_jax.sources.exams import POSITIVE


def write(folder: Path | str, predictions: Predictions, broken: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes folder/covid.csv and folder/non-covid.csv: one row with the names of the
    unlabelled scans that were decided so, with commas between them.

    Nothing is written where all scans have labels. A name is the last part of an id where that is unique, else the whole id.
    broken: {exam id: reason} of exams that could not be prepared and are in neither file.
    """
    unlabelled = predictions.at(np.flatnonzero(predictions.label < 0))
    if not unlabelled.exams:
        return
    names = [exam.id.rpartition('/')[2] for exam in unlabelled.exams]
    if len(set(names)) < len(names):
        names = [exam.id for exam in unlabelled.exams]
    is_covid = decide(unlabelled.probability, positive=POSITIVE) == POSITIVE
    covid = [name for name, is_positive in zip(names, is_covid, strict=True) if is_positive]
    other = [name for name, is_positive in zip(names, is_covid, strict=True) if not is_positive]
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    missing = f'; {len(broken)} scans that could not be prepared are in neither, see quarantine.csv' if broken else ''
    print(f'{folder}: {len(covid)} unlabelled scans in covid.csv, {len(other)} in non-covid.csv{missing}', flush=True)
    for name, scans in (('covid', covid), ('non-covid', other)):
        row = io.StringIO()
        csv.writer(row).writerow(scans)  # the names as they are: a program reads them
        files.write(folder / f'{name}.csv', row.getvalue())
