"""What a ranking puts first and last: Fig 3 of dual-track ranking (Li et al., IEEE JBHI 2020)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from covid_jax.report.plots import save


def ranking_png(path: str | Path, rows: Mapping[str, Sequence[tuple[np.ndarray, str]]]) -> None:
    """Writes a row of pictures for each track. rows: {name of the track: [(prepared scan uint8 [depth, height, width, 1], its distance as
    text)], in order}; of a scan the middle slice is shown."""
    from matplotlib.figure import Figure

    most = max(map(len, rows.values()))
    figure = Figure(figsize=(1.5 * most, 2.0 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), most, squeeze=False)
    for cells, (name, scans) in zip(grid, rows.items(), strict=True):
        for axes in cells:
            axes.axis('off')
        for axes, (scan, distance) in zip(cells, scans, strict=False):
            axes.imshow(scan[len(scan) // 2, :, :, 0], cmap='gray', vmin=0, vmax=255)
            axes.set_title(distance, fontsize=8)
        cells[0].text(0, 1.28, f'{name}; above each its mean distance', transform=cells[0].transAxes, fontsize=9)
    save(path, figure)
