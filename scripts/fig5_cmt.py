"""Fig 5 of CMT-CNN: what the network attends to, beside Grad-CAM, on scans of your choice.

    python -m covid_jax.main --config=configs/cmt.py --config.cmt.attention=True --workdir=runs/attention
    python scripts/fig5_cmt.py runs/attention phantom:xray:9:0:covid phantom:xray:9:1:normal --out=fig5.png

A row for each scan, of a volume its slice of most Grad-CAM: the scan, Grad-CAM for the most probable class, and the attention that the
decoder has learnt, which knows no class.
"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

from covid_jax import UserError, start
from covid_jax.report.attention import attention
from covid_jax.report.gradcam import draw, explain, hottest
from covid_jax.text import printable


def main(folder: Path, addresses: list[str], out: str) -> None:
    finished = start.load(folder)
    figure = Figure(figsize=(8, 2.8 * len(addresses)), layout='constrained')
    for row, address in zip(figure.subplots(len(addresses), 3, squeeze=False), addresses, strict=True):
        seen = explain(*finished, address)
        (z,) = hottest(seen.heat, 1)
        nothing = seen._replace(heat=0 * seen.heat)
        for axes, shown in zip(row, (nothing, seen, attention(*finished, address)), strict=True):
            draw(axes, shown, z)
        row[0].set_title(printable(Path(address).name), fontsize=8)
        row[1].set_title(printable(f'Grad-CAM: {seen.names[seen.target]} {seen.probability[seen.target]:.2f}'), fontsize=8)
        row[2].set_title('attention', fontsize=8)
    figure.savefig(out, dpi=120)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='of a finished run with --config.cmt.attention=True')
    parser.add_argument('addresses', nargs='+', help='paths of scans, or of phantoms, as phantom:xray:9:0:covid')
    parser.add_argument('--out', default='fig5.png')
    args = parser.parse_args()
    try:
        main(args.folder, args.addresses, args.out)
    except UserError as error:
        sys.exit(str(error))
