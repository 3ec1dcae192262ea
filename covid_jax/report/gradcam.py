"""Grad-CAM: where a network looked. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (2017)."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from covid_jax import UserError
from covid_jax.data.prep import Place, Prep, place, prepare, to_scan, together
from covid_jax.methods.method import Batch, Method
from covid_jax.runtime import files
from covid_jax.runtime.state import TrainState
from covid_jax.scans.decode import decode
from covid_jax.scans.scan import Scan
from covid_jax.text import printable, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP = 'map'  # the layer that is the last feature map
DECIDED = -1  # in place of a class: the most probable one
UNKNOWN = -1  # in place of a site
LUNG_WINDOW = (-1350.0, 150.0)  # HU that are black and white: width 1500, level -600
OPAQUE = 0.6  # how much the hottest voxel hides of the scan
SLICES = 8  # of a volume


Prepared = tuple[Scan, Place, dict[str, jax.Array]]  # as one_scan gives it


class Running(Protocol):
    """What an explanation needs of a start.Run."""

    @property
    def method(self) -> Method: ...

    @property
    def prep(self) -> Prep: ...

    @property
    def sites(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...


class Explanation(NamedTuple):
    """What a run saw in a scan.

    scan:        as decoded
    heat:        float32 [depth, height, width], 0 to 1 at its maximum; all 0 where nothing speaks for the class
    cell:        (z, y, x) voxels of the scan that one number of the layer's map is of
    probability: float32 [classes]
    target:      the class that was asked about
    names:       of the classes
    """

    scan: Scan
    heat: np.ndarray
    cell: tuple[float, float, float]
    probability: np.ndarray
    target: int
    names: tuple[str, ...]


def gradcam(method: Method, params: dict, state: dict, batch: Batch, target: int | Sequence[int] | np.ndarray | None,
            layer: str = MAP) -> jax.Array:
    """Grad-CAM of each row: float32 [batch, d, h, w] on the grid of the layer's map, at least 0, not scaled.

    ReLU(sum_k w_k A_k), where A [batch, d, h, w, channels] is the map and w_k the mean over space of the derivative of the
    target's logit by A_k (Eq 1 and 2). An image is a volume of one slice. Where a row's answer is an average over sites, so
    is its map: the sum over them, each as far as its answer counts in the average.

    target: a class, or one for each row; None: the most probable. layer: 'map', what the network's trunk gives, or the path
    of a module, as 'layer2_0' in network.txt. UserError for a layer without a map, for a class that there is not, and for a
    method that does not classify.
    """
    return look(method, params, state, batch, target, layer)[0]


def look(method: Method, params: dict, state: dict, batch: Batch, target: int | Sequence[int] | np.ndarray | None,
         layer: str = MAP) -> tuple[jax.Array, jax.Array]:
    """gradcam, and the logits float32 [batch, classes] of the same pass."""
    maps: dict[str, tuple[int, ...]] = {}
    answers = jax.eval_shape(partial(_tapped, method.predict, partial(_note, maps)), params, state, batch)
    if 'logits' not in answers:
        raise UserError('a method that gives no logits decides for no class: there is nothing to explain')
    if layer not in maps:
        raise UserError(f'no map is called {printable(layer)!r}: take {MAP}, or a module of network.txt, as '
                        f'{some(_blocks(maps))}')
    rows, classes = answers['logits'].shape
    asked = np.full(rows, DECIDED) if target is None else np.broadcast_to(np.asarray(target, np.int32), rows)
    if target is not None and not ((asked >= 0) & (asked < classes)).all():
        raise UserError(f'no class is number {some(sorted({*asked.tolist()} - {*range(classes)}))}: there are 0 to {classes - 1}')
    return _look(method.predict, layer, maps[layer], params, state, batch, asked)


def explain(run: Running, state: TrainState, address: str | Path, target: int | None = None, layer: str = MAP,
            site: str = '') -> Explanation:
    """What a finished run saw in the scan at an address, on the scan's own grid.

    target: the class that is asked about; None: the most probable. layer: as in `gradcam`. site: where the scan is from; one
    that the run does not know is answered for as in its tables. UserError for a scan that cannot be read or prepared, and as
    in `gradcam`.
    """
    return explain_prepared(run, state, one_scan(run, address, site), target, layer)


def explain_prepared(run: Running, state: TrainState, prepared: Prepared, target: int | None = None, layer: str = MAP) -> Explanation:
    """`explain` of what `one_scan` gives. UserError as in `gradcam` alone."""
    scan, where, batch = prepared
    coarse, logits = jax.device_get(look(run.method, state.params, state.state, batch, target, layer))
    heat = to_scan(coarse[0], where)
    heat /= heat.max() or 1
    z, y, x = np.multiply(where.size, where.steps) / coarse[0].shape
    asked = int(logits[0].argmax()) if target is None else target
    return Explanation(scan, heat, (float(z), float(y), float(x)), np.asarray(jax.nn.softmax(logits[0])), asked, run.classes)


def one_scan(run: Running, address: str | Path, site: str = '') -> Prepared:
    """The scan at an address, where its prepared form lies in it, and the batch of that alone. UserError for a scan that cannot
    be read or prepared."""
    scan = decode(address)
    try:
        where = place(scan, run.prep)
        image = prepare(scan, run.prep, where)
    except UserError as error:
        raise UserError(f'{address}: {error}') from None
    number = run.sites.index(site) if site in run.sites else UNKNOWN
    fields = jax.tree.map(jnp.asarray, together([image], run.prep.canvas))
    return scan, where, {**fields, 'label': jnp.array([-1], jnp.int32), 'site': jnp.array([number], jnp.int32),
                         'draw': jnp.zeros(1, jnp.uint32)}


def overlay_png(path: str | Path, explanation: Explanation) -> None:
    """Writes slices of a scan with the map over them: of a volume the hottest of each of up to eight stretches of it."""
    content = io.BytesIO()
    overlay_figure(explanation).savefig(content, format='png', dpi=150)
    files.write(path, content.getvalue())


def overlay_figure(explanation: Explanation) -> 'Figure':
    """What overlay_png writes."""
    from matplotlib.figure import Figure

    shown = hottest(explanation.heat, SLICES)
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows + 0.6), layout='constrained')
    for axes, z in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        draw(axes, explanation, z)
        mark(axes, explanation.scan, z)
    asked = explanation.target
    figure.suptitle(f'{printable(explanation.names[asked])}: probability {explanation.probability[asked]:.3f}', fontsize=10)
    return figure


def hottest(heat: np.ndarray, most: int) -> list[int]:
    """The slice of most heat, of heat [depth, height, width], in each of so many stretches of the depth."""
    by_slice = heat.sum((1, 2), dtype=float)
    stretches = np.array_split(np.arange(len(heat)), min(most, len(heat)))
    return [int(stretch[by_slice[stretch].argmax()]) for stretch in stretches]


def draw(axes: 'Axes', explanation: Explanation, z: int) -> None:
    """Slice z in grey, in the window of lungs where it has Hounsfield units, and the map over it in colour."""
    heat = explanation.heat[z]
    draw_plain(axes, explanation.scan, z)
    axes.imshow(heat, cmap='inferno', vmin=0, vmax=1, alpha=OPAQUE * heat, aspect=axes.get_aspect())


def draw_plain(axes: 'Axes', scan: Scan, z: int) -> None:
    """Slice z in grey, in the window of lungs where it has Hounsfield units."""
    low, high = LUNG_WINDOW if scan.hounsfield else (0, 255)
    aspect = scan.spacing[1] / scan.spacing[2] if scan.spacing else 1
    axes.imshow(scan.voxels[z], cmap='gray', vmin=low, vmax=high, aspect=aspect)
    axes.axis('off')


def mark(axes: 'Axes', scan: Scan, z: int) -> None:
    """Says which slice of a volume is drawn, and where the patient's right and left are if the scan knows."""
    if len(scan.voxels) > 1:
        axes.set_title(f'slice {z}', fontsize=8)
    if scan.affine is not None:
        for at, side, text in ((0.02, 'left', 'R'), (0.98, 'right', 'L')):
            axes.text(at, 0.5, text, color='white', fontsize=8, ha=side, va='center', transform=axes.transAxes)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _look(predict, layer, shape, params, state, batch, target):
    def logit(heat):
        def tap(name, x):
            return _leave_heat(x, heat) if name == layer else x

        logits = _tapped(predict, tap, params, state, batch)['logits']
        chosen = jnp.where(target == DECIDED, jnp.argmax(logits, -1), target)
        return jnp.sum(jnp.take_along_axis(logits, chosen[:, None], -1)), logits

    return jax.grad(logit, has_aux=True)(jnp.zeros(shape, jnp.float32))


@jax.custom_vjp
def _leave_heat(x, heat):
    """x [batch, (d,) h, w, channels]; what comes back as the derivative by heat [batch, d, h, w] is Grad-CAM. So it is made
    where the map is, and no map has to come out of a lax.map or a lax.cond that the network runs in."""
    return x


def _forward(x, heat):
    return x, x


def _backward(x, slope):
    weight = jnp.mean(slope.astype(jnp.float32), range(1, x.ndim - 1))
    heat = nn.relu(jnp.einsum('b...c,bc->b...', x.astype(jnp.float32), weight, precision='highest'))
    return slope, heat.reshape(_grid(x))


_leave_heat.defvjp(_forward, _backward)


def _tapped(predict, change, params, state, batch):
    """predict(params, state, batch), where change(name, x) stands in for each map x of the network."""
    def interceptor(call, args, kwargs, context):
        x = call(*args, **kwargs)
        name = _name(context)
        return change(name, x) if name and isinstance(x, jax.Array) and x.ndim in (4, 5) else x

    with nn.intercept_methods(interceptor):
        return predict(params, state, batch)


def _name(context):
    """What a layer is called here; '' for a call that is none's."""
    path = context.module.path
    if context.method_name == 'trunk' and not path:
        return MAP
    return '/'.join(path) if context.method_name == '__call__' else ''


def _note(maps, name, x):
    maps[name] = _grid(x)
    return x


def _grid(x):
    """(batch, d, h, w) of a map; an image has one slice."""
    return (*x.shape[:-1],) if x.ndim == 5 else (len(x), 1, *x.shape[1:-1])


def _blocks(maps):
    """The last of the modules that a network's trunk is made of."""
    return [name for name in maps if name != MAP and '/' not in name][-5:]
