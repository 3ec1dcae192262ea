"""covid-jax explain scans/* --run=runs/cmc --out=explained"""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from covid_jax import UserError
from covid_jax.commands.compare import check_folder
from covid_jax.text import printable


def run(paths: Annotated[list[str], typer.Argument(metavar='PATH...', help='Scans: a folder of DICOM or slices, a volume, an image, a zip.')],
        run: Annotated[str, typer.Option(help='A finished run; of several folds or seeds the folder of one.')],
        out: Annotated[str, typer.Option(help='A folder, in which each scan gets one.')] = 'explained',
        class_: Annotated[str, typer.Option('--class', help='The class that is asked about; the most probable one by default.')] = '',
        layer: Annotated[str, typer.Option(help='The layer whose map is taken: map, the last one, or a module of network.txt.')] = 'map',
        site: Annotated[str, typer.Option(help='The hospital, as the run knows it.')] = '',
        dicom: Annotated[bool, typer.Option('--dicom', help='Write DICOM SEG and SR, too; they carry the PatientID of the scan.')] = False,
        ) -> None:
    """Where a finished run looked in scans: Grad-CAM over the slices that matter, and as NIfTI in the scan's own geometry."""
    check_folder(out)
    if dicom:
        from covid_jax.report import dicom_out
        dicom_out.check_installed()
    from covid_jax import runs as finished
    from covid_jax import start  # what takes long to import
    from covid_jax.report import gradcam, overlay, pictures

    parts = finished.parts(run)
    if len(parts) > 1:
        raise UserError(f'{run} has {len(parts)} trainings, a map is of one: give --run={parts[0].folder}')
    opened, state = start.load(parts[0].folder)
    if class_ and class_ not in opened.classes:
        raise UserError(f'--class={class_}: the classes of {run} are {", ".join(opened.classes)}')
    target = opened.classes.index(class_) if class_ else None
    name = pictures.name(opened.folder)
    places = folders(paths, out)
    for path, folder in zip(paths, places, strict=True):
        if folder.resolve() in (Path(path).resolve(), *Path(path).resolve().parents):
            raise UserError(f'--out={out} would put pictures between the slices of {path}: give another folder')
    for path, folder in zip(paths, places, strict=True):
        try:
            prepared = gradcam.one_scan(opened, path, site)
        except UserError as error:
            _say(f'no map, {error}')
            continue
        found = gradcam.explain_prepared(opened, state, prepared, target, layer)
        shown = overlay.write(folder, found, name, Path(path).name or path)
        _say(f'{path}: {told(found, shown)}: {folder}')
        if dicom:
            try:
                dicom_out.write(folder, found, path, name, layer)
            except UserError as error:
                _say(error)
    _say('Research software, not a medical device.')


def folders(paths: list[str], out: str) -> list[Path]:
    """A folder in `out` for each scan, by the last part of its path; those of one name are numbered."""
    seen: Counter[str] = Counter()
    found = []
    for path in paths:
        stem = re.sub(r'[^\w.=+-]+', '_', Path(path).name).strip('._') or 'scan'
        name = stem
        while name.casefold() in seen:
            seen[stem.casefold()] += 1
            name = f'{stem}_{seen[stem.casefold()]}'
        seen[name.casefold()] += 1
        found.append(Path(out, name))
    return found


def told(explanation: Any, shown: list[int]) -> str:
    """An Explanation of report/gradcam.py in words."""
    name = explanation.names[explanation.target]
    probability = f'{name}, {explanation.probability[explanation.target]:.3f}'
    if not explanation.heat.any():
        return f'{probability}; nothing in it speaks for {name}, the map is 0'
    return f'{probability}; most heat in slices {", ".join(map(str, shown))}' if len(explanation.heat) > 1 else probability


def _say(line):
    print(printable(line), flush=True)
