"""What `covid-jax explain` leaves of one scan: pictures of its slices with the map over them, and the map in the scan's own geometry."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np

from covid_jax.report import plots
from covid_jax.report.gradcam import OPAQUE, SLICES, Explanation, draw, draw_plain, hottest, mark, overlay_figure
from covid_jax.runtime import files
from covid_jax.scans import geometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLOSE = 3  # slices that get a picture of their own
LONG = 2**15  # voxels along an axis that a NIfTI-1 cannot count


def write(folder: Path | str, explanation: Explanation, run: str, scan: str) -> list[int]:
    """Writes overlay.png, slice_<number>.png of the slices of most heat, and heat.nii.gz. Returns the numbers of these slices.

    run, scan: what the pictures call them. A number counts from 0 at the feet, as in PATH::slice=N. Where nothing speaks for the class,
    no slice has a picture of its own.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / 'heat.nii.gz').exists():
        for old in folder.glob('slice_*.png'):  # of another class or layer
            old.unlink()
    title = title_of(explanation, run, scan)
    plots.save(folder / 'overlay.png', overlay_figure(explanation), title)
    shown = slices_that_matter(explanation.heat)
    for z in shown:
        plots.save(folder / f'slice_{z:03d}.png', close_up(explanation, z), title)
    files.write(folder / 'heat.nii.gz', heat_nifti(explanation))
    return shown


def title_of(explanation: Explanation, run: str, scan: str) -> str:
    """The lines over a picture: run and scan, then the class that was asked about and how probable it is."""
    name = explanation.names[explanation.target]
    said = f'{name}: probability {explanation.probability[explanation.target]:.3f}, one plain view, not calibrated'
    return f'{run}: {scan}\n{said}'


def slices_that_matter(heat: np.ndarray, most: int = CLOSE) -> list[int]:
    """The slices of most heat, of heat [depth, height, width], one of each of so many stretches of the depth; none without heat."""
    total = heat.sum((1, 2), dtype=float)
    apart = len(heat) / SLICES / 2  # the last slice of a stretch and the first of the next show the same
    shown: list[int] = []
    for z in sorted(hottest(heat, SLICES), key=lambda z: -total[z]):
        if total[z] > 0 and all(abs(z - other) >= apart for other in shown):
            shown.append(z)
    return sorted(shown[:most])


def close_up(explanation: Explanation, z: int) -> 'Figure':
    """One slice, plain and with the map over it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.4), layout='constrained')
    plain, over = figure.subplots(1, 2)
    draw_plain(plain, explanation.scan, z)
    draw(over, explanation, z)
    for axes in (plain, over):
        mark(axes, explanation.scan, z)
    colours = figure.colorbar(over.images[-1], ax=over, shrink=0.7, label='Grad-CAM, 1 is the maximum of the scan')
    colours.solids.set_alpha(OPAQUE)
    return figure


def heat_nifti(explanation: Explanation) -> bytes:
    """The map as .nii.gz, float32 0 to 1, in the order of the axes of the scan's file and with its affine.

    Of a scan that does not say where left, front and head are, i is the column, j the row and k the slice; its sform and qform say
    nothing, and its voxels are as large as the scan says, or 1 mm.
    """
    scan = explanation.scan
    heat = np.ascontiguousarray(geometry.as_stored(explanation.heat, scan.affine), np.float32)
    kind = nibabel.Nifti1Image if max(heat.shape) < LONG else nibabel.Nifti2Image
    image = kind(heat, scan.affine)
    image.header.set_xyzt_units('mm')
    if scan.affine is None:
        image.header.set_zooms((scan.spacing or (1.0, 1.0, 1.0))[::-1])
    else:
        image.set_sform(scan.affine, 'scanner')
        image.set_qform(scan.affine, 'scanner')
    return gzip.compress(image.to_bytes(), 1, mtime=0)
