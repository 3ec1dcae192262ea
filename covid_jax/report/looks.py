"""Scans that a report shows: the surest mistakes and some answers that are right, as the network saw them, with where it looked.

They lie as looks.npz in the folder of the run, small enough to go along with it, so that a report needs neither the data nor the network.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from covid_jax.data.prep import Prep, together
from covid_jax.methods.method import Method
from covid_jax.report import gradcam
from covid_jax.runtime import files
from covid_jax.runtime.state import TrainState
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import Exam

FILE = 'looks.npz'
METHOD = 'Grad-CAM of the class that was decided for, on the last feature map, of some scans; nobody has validated the maps'
SLICES = 16  # of a volume, at most
SIDE = 160  # pixels of the longer side, at most


class Running(Protocol):
    """What this needs of a start.Run."""

    @property
    def method(self) -> Method: ...

    @property
    def prep(self) -> Prep: ...


class Data(Protocol):
    """What this needs of a pipeline.Dataset."""

    @property
    def exams(self) -> list[Exam]: ...

    @property
    def site(self) -> np.ndarray: ...

    @property
    def row(self) -> np.ndarray: ...

    @property
    def images(self) -> Any: ...


class Look(NamedTuple):
    """id: of the exam; image: uint8 [slices, height, width], of the prepared scan; heat: the same, 255 where it is hottest; slices: the
    numbers of these; depth: how many the prepared scan has."""

    id: str
    image: np.ndarray
    heat: np.ndarray
    slices: list[int]
    depth: int

    @property
    def hottest(self) -> int:
        """The position of the slice with the most heat, the middle one where there is none."""
        heat = self.heat.sum((1, 2), dtype=int)
        return int(heat.argmax()) if heat.any() else len(heat) // 2


def there(folder: Path | str) -> bool:
    """Whether a run has some."""
    return (Path(folder) / FILE).is_file()


def write(folder: Path | str, run: Running, state: TrainState, dataset: Data, shown: Sequence[tuple[str, int]]) -> None:
    """Writes looks.npz. shown: (id, the class that was decided for) of exams of the data set; those that it lacks are passed over."""
    at = {exam.id: i for i, exam in enumerate(dataset.exams)}
    keep(folder, [look(run, state, dataset, at[name], target) for name, target in shown if name in at])


def keep(folder: Path | str, found: Sequence[Look]) -> None:
    """Writes what `read` reads."""
    arrays = {f'{what}_{k}': getattr(each, what) for k, each in enumerate(found) for what in ('image', 'heat')}
    about = json.dumps([{'id': each.id, 'slices': each.slices, 'depth': each.depth} for each in found])
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(about), **arrays)
    files.write(Path(folder) / FILE, content.getvalue())


def read(folder: Path | str) -> list[Look]:
    """What `write` wrote, in its order; [] where there is none. UserError for a damaged file."""
    if not there(folder):
        return []
    path = Path(folder) / FILE
    with blame(path), np.load(path, allow_pickle=False) as kept:
        found = [Look(each['id'], kept[f'image_{k}'], kept[f'heat_{k}'], each['slices'], each['depth'])
                 for k, each in enumerate(json.loads(str(kept['about'])))]
        if any(not each.image.shape == each.heat.shape == (len(each.slices), *each.image.shape[1:3]) for each in found):
            raise ValueError('its scans and their maps do not fit: delete it, and covid-jax report makes it again')
        return found


def look(run: Running, state: TrainState, dataset: Data, i: int, target: int) -> Look:
    """The Look at exam i of the data set, its map that of the class `target`."""
    image = dataset.images[int(dataset.row[i])]['image']
    fields = jax.tree.map(jnp.asarray, together([image], run.prep.canvas))
    batch = {**fields, 'label': jnp.array([-1], jnp.int32), 'site': jnp.array([dataset.site[i]], jnp.int32),
             'draw': jnp.zeros(1, jnp.uint32)}
    coarse = np.asarray(jax.device_get(gradcam.gradcam(run.method, state.params, state.state, batch, target)))[0]
    shape = fields['image'].shape[1:4]
    heat = ndimage.zoom(coarse, np.divide(shape, coarse.shape), order=1, mode='nearest', grid_mode=True)
    return thinned(dataset.exams[i].id, image[..., 0], heat[:, :image.shape[1], :image.shape[2]])


def thinned(name: str, image: np.ndarray, heat: np.ndarray) -> Look:
    """The Look of an image, uint8 [depth, height, width], and a heat of this shape, at least 0: of some of its slices, the hottest among
    them, and of at most SIDE pixels a side."""
    depth, height, width = image.shape
    slices = np.unique(np.linspace(0, depth - 1, min(depth, SLICES)).round().astype(int))
    hottest = int(heat.sum((1, 2)).argmax()) if heat.any() else depth // 2
    slices[np.abs(slices - hottest).argmin()] = hottest
    scaled = np.rint(255 * heat / (heat.max() or 1)).astype(np.uint8)
    ratio = min(1, SIDE / max(height, width))
    size = max(1, round(width * ratio)), max(1, round(height * ratio))

    def small(volume):
        return np.stack([np.asarray(Image.fromarray(volume[z]).resize(size, Image.Resampling.BILINEAR)) for z in slices])

    return Look(name, small(image), small(scaled), slices.tolist(), depth)
