"""A finished run -> files that answer without this package: StableHLO for any platform, its numbers, an example, and ONNX."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.export
import numpy as np

from covid_jax import UserError, methods
from covid_jax.evaluate import predictor
from covid_jax.methods.method import abstract_batch
from covid_jax.models import sites
from covid_jax.runtime import files
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import POSITIVE
from covid_jax.start import Run, versions

PLATFORMS = 'cpu', 'cuda', 'tpu'
EXAMPLE_SCANS = 2
UNKNOWN_SITE = -1
ONNX_CLOSE = 1e-5  # how far the answers of onnxruntime may be from those of jax
MEANINGS = {
    'threshold': 'of the probability of the positive class as it comes out, frozen on validation; null: none was frozen, and the '
                 'most probable class decides',
    'temperature': 'softmax(log(probability) / temperature) is the calibrated probability; null: none was fitted',
}
EXAMPLE = '''"""What model.stablehlo answers, by jax and numpy alone:  python example.py [SCANS.npz]

SCANS.npz holds the inputs that model.json names, of scans prepared as its "prep" says. Without it: example.npz, which is noise.
"""
import json
import sys
from pathlib import Path

import jax.export
import numpy as np

here = Path(__file__).parent
model = json.loads((here / 'model.json').read_text())
network = jax.export.deserialize((here / 'model.stablehlo').read_bytes())
scans = np.load(sys.argv[1] if len(sys.argv) > 1 else here / 'example.npz')
probability = np.asarray(network.call(*[scans[each['name']] for each in model['inputs']]))  # [batch, classes]
weight = np.maximum(probability, 1e-7) ** (1 / (model['temperature'] or 1))
calibrated = weight / weight.sum(1, keepdims=True)
for p, c in zip(probability, calibrated):
    print(json.dumps({'probability': p.tolist(), 'calibrated': c.tolist()}))
'''


def inputs(run: Run) -> dict[str, tuple[tuple[int, ...], str]]:
    """{name: (shape without the batch, type)} of what an exported network takes, in order.

    image: uint8 [depth, height, width, 1], prepared by run.prep. Where scans keep their aspect, extent: int32 [2], the height and
    the width of the scan at the top left of the image. Where the network normalises by site, site: int32 [], as run.sites numbers
    them, UNKNOWN_SITE for another.
    """
    batch = abstract_batch(run.config, 1)
    names = ['image']
    if 'extent' in batch:
        names.append('extent')
    if sites(run.config.model.name, run.config.model.sites) > 1:
        names.append('site')
    return {name: (batch[name].shape[1:], str(batch[name].dtype)) for name in names}


def answering(run: Run, state: TrainState, platform: str = 'any') -> Callable[..., jax.Array]:
    """What the run answers as a function of arrays [batch, ...] in the order of `inputs`: probability, float32 [batch, classes].

    It holds its weights, computes in float32, and sees each scan once and plain. platform: as conv.form_for takes it; by default
    convolutions are native, which every platform of jax takes. UserError for a run that does not classify.
    """
    elsewhere: Any = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))  # all that a method asks of a mesh
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = 'float32'
    method = methods.make(config, elsewhere)
    weights = jax.device_get((state.params, state.state))
    if 'logits' not in jax.eval_shape(method.predict, *weights, abstract_batch(config, 1)):
        raise UserError(f'{run.folder} does not classify: give a run whose method does')
    names = list(inputs(run))

    def answer(*arrays):
        batch = dict(zip(names, arrays, strict=True))
        batch.setdefault('site', None)
        return jax.nn.softmax(method.predict(*weights, batch)['logits'])

    return answer


def stablehlo(run: Run, state: TrainState) -> bytes:
    """The function of `answering` for any batch on each of PLATFORMS, as jax.export.deserialize reads it.

    Products are in full float32 where a platform would round them otherwise, so that all platforms answer alike.
    """
    with jax.default_matmul_precision('highest'):
        exported = jax.export.export(jax.jit(answering(run, state)), platforms=PLATFORMS)(*_shapes(run))
    return bytes(exported.serialize())


def onnx(run: Run, state: TrainState) -> bytes:
    """The same function as an ONNX model for any batch, with the names of `inputs`. UserError where jax2onnx is not installed, or
    does not convert the network."""
    for name in ('jax2onnx', 'onnxruntime'):
        if importlib.util.find_spec(name) is None:
            raise UserError(f'--onnx needs {name}, which is not installed: pip install -c constraints.txt "covid-jax[onnx]"')
    answer = answering(run, state, 'onnx')
    for name in ('jax2onnx', 'onnx_ir'):  # what they tell is of their own parts
        logging.getLogger(name).setLevel(logging.ERROR)
    import jax2onnx

    try:
        model = jax2onnx.to_onnx(answer, _shapes(run), model_name='covid_jax', input_names=list(inputs(run)),
                                 output_names=['probability'])
    except Exception as error:  # whatever a converter of all of jax may raise
        reason = str(error).strip().splitlines()
        raise UserError(f'jax2onnx {importlib.metadata.version("jax2onnx")} does not convert {run.config.model.name}: '
                        f'{type(error).__name__}: {reason[0].rstrip(".") if reason else ""}; export without --onnx') from error
    return model.SerializeToString()


def _shapes(run):
    """Those of `inputs`, of a batch whose size is not known."""
    batch, = jax.export.symbolic_shape('batch')
    return [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in inputs(run).values()]


def example(run: Run, seed: int = 0) -> dict[str, Any]:
    """Arrays [EXAMPLE_SCANS, ...] of `inputs`: noise in place of scans, of an unknown site, as wide as may be."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, (shape, dtype) in inputs(run).items():
        whole = (EXAMPLE_SCANS, *shape)
        if name == 'image':
            made[name] = rng.integers(0, 256, whole, np.uint8)
        else:
            made[name] = np.full(whole, run.prep.canvas if name == 'extent' else UNKNOWN_SITE, dtype)
    return made


def own_answer(run: Run, state: TrainState, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What the run itself answers of arrays as `inputs` names them: probability, float [batch, classes]."""
    n = len(arrays['image'])
    batch = {'site': np.full(n, UNKNOWN_SITE, np.int32), **arrays}
    return np.asarray(predictor(run.method, run.mesh)(state.params, state.state, batch)['probability'])


def description(run: Run) -> dict[str, Any]:
    """What model.json says: how a scan is prepared, what goes in, what comes out, and how it is judged."""
    tta = run.config.eval.tta
    takes = inputs(run)
    return {
        'classes': list(run.classes), 'positive': run.classes[POSITIVE],
        'output': 'probability, float32 [batch, classes]: a softmax, not calibrated',
        'threshold': run.threshold, 'temperature': run.temperature, 'meanings': MEANINGS,
        'inputs': [{'name': name, 'shape': ['batch', *shape], 'dtype': dtype} for name, (shape, dtype) in takes.items()],
        'prep': {**dataclasses.asdict(run.prep), 'hash': run.prep.hash},
        **({'sites': list(run.sites), 'unknown_site': UNKNOWN_SITE} if 'site' in takes else {}),
        'views': f'the run averages {tta} random views of each scan; here it is seen once and plain' if tta else
                 'a scan is seen once and plain, as by the run',
        'computes': 'float32', 'platforms': list(PLATFORMS),
        'versions': {'trained': dict(run.versions), 'exported': versions()},
        'note': 'Research software, not a medical device.'}


def write(folder: str | Path, run: Run, state: TrainState, with_onnx: bool = False, say: Callable[[str], None] = print) -> None:
    """model.stablehlo, model.json, example.py and example.npz in the folder, and model.onnx where it is asked for.

    Each is asked about the example, and how far it is from the run's own answer is said. UserError as `answering` and `onnx`, and
    where onnxruntime answers otherwise than jax.
    """
    folder = Path(folder)
    arrays = example(run)
    serialised = stablehlo(run, state)
    answered = np.asarray(jax.export.deserialize(bytearray(serialised)).call(*arrays.values()))
    own = own_answer(run, state, arrays)
    converted = _checked(onnx(run, state), arrays, answered) if with_onnx else None
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / 'model.stablehlo', serialised)
    files.write(folder / 'model.json', json.dumps(description(run), indent=1))
    files.write(folder / 'example.py', EXAMPLE)
    np.savez(folder / 'example.npz', **arrays)
    if converted:
        files.write(folder / 'model.onnx', converted)
    say(f'{", ".join(sorted(path.name for path in folder.glob("model.*")))} and example.py: {folder}')
    say(f'of noise it answers as the run does, but for {np.abs(answered - own).max():.1g} of a probability')


def _checked(model, arrays, expected):
    """The model, once onnxruntime answers as expected of the arrays."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    apart = np.abs(session.run(None, arrays)[0] - expected).max()
    if not apart <= ONNX_CLOSE:
        raise UserError(f'onnxruntime {onnxruntime.__version__} answers otherwise than jax, by {apart:.1g} of a probability: export '
                        'without --onnx')
    return model
