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
    figure = Figure(figsize=(1.5 * most, 2.1 * len(rows)), layout='constrained')
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (name, scans) in zip(parts, rows.items(), strict=True):
        part.suptitle(f'{name}; above each its mean distance', fontsize=9)
        for axes, (scan, distance) in zip(part.subplots(1, most, squeeze=False)[0], scans, strict=True):
            axes.imshow(scan[len(scan) // 2, :, :, 0], cmap='gray', vmin=0, vmax=255)
            axes.set_title(distance, fontsize=8)
            axes.axis('off')
    save(path, figure)
