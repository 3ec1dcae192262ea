"""What the attention decoder of CMT-CNN has learnt to weigh: Fig 5 of Li et al. (2021), beside Grad-CAM."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from covid_jax import UserError
from covid_jax.data.prep import to_scan
from covid_jax.models.attention import AttentionDecoder
from covid_jax.report.gradcam import Explanation, Running, one_scan
from covid_jax.runtime.state import TrainState


def attention(run: Running, state: TrainState, address: str | Path, site: str = '') -> Explanation:
    """The attention of a finished run to the scan at an address, on the scan's own grid: an Explanation that
    `gradcam.overlay_png` draws. Its heat is the attention as it is, in (0, 1) and not scaled, 0 where the prepared scan does
    not reach; its target is the most probable class, which the attention does not depend on.

    site: as in `gradcam.explain`. UserError for a run without the decoder, and for a scan that cannot be read or prepared.
    """
    scan, where, batch = one_scan(run, address, site)
    fine, logits = jax.device_get(_decoded(run.method.predict, state.params, state.state, batch))
    z, y, x = np.multiply(where.size, where.steps) / fine[0].shape
    probability = np.asarray(jax.nn.softmax(logits[0]))
    return Explanation(scan, to_scan(fine[0], where), (float(z), float(y), float(x)), probability, int(probability.argmax()),
                       run.classes)


@partial(jax.jit, static_argnums=0)
def _decoded(predict, params, state, batch):
    """The attention [batch, d, h, w] and the logits [batch, classes] of one pass."""
    caught = []

    def interceptor(call, args, kwargs, context):
        found = call(*args, **kwargs)
        if isinstance(context.module, AttentionDecoder) and context.method_name == '__call__':
            caught.append(found[1])
        return found

    with nn.intercept_methods(interceptor):
        answers = predict(params, state, batch)
    if not caught:
        raise UserError('this run has no attention decoder: train one with --config.cmt.attention=True')
    if 'logits' not in answers:
        raise UserError('this run does not classify, so its attention is for no class: give one whose method does')
    return caught[0][..., 0], answers['logits']
