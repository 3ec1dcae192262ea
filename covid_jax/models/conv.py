"""3D convolutions and pools, channels last, in the form that is fast on the platform at hand.

XLA's own 3D convolution on a CPU is up to 25 times slower than it need be (stride or groups in the backward pass have no
fast path), so there is a second, equal form made of 2D convolutions and matrix products. Which one runs is a field of the
network, chosen from the mesh's platform; both are tested against `lax.conv_general_dilated`, gradients included.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

IM2COL_POSITIONS = 256  # below this many output positions one matrix product beats a convolution (CPU, measured)


def form_for(platform):
    """'planar' on a CPU, 'native' on GPU and TPU."""
    return 'planar' if platform == 'cpu' else 'native'


def conv3d(x, kernel, strides=(1, 1, 1), padding=((0, 0), (0, 0), (0, 0)), form='native'):
    """3D convolution (cross-correlation, as in every deep-learning library).

    Args:
      x: [batch, depth, height, width, in].
      kernel: [kd, kh, kw, in, out].
      strides, padding: by axis (depth, height, width); zero padding, (before, after).
      form: 'native' is XLA's 3D convolution, 'planar' the CPU form. A kernel one slice deep is a 2D convolution in both.

    Returns: [batch, depth', height', width', out].
    """
    if form == 'native' and kernel.shape[0] > 1:
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))
    taps = kernel.shape[:3]
    out = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(x.shape[1:4], taps, strides, padding, strict=True)]
    if form == 'native':
        return _depth_on_channels(x, kernel, strides, padding, out[0])
    if math.prod(taps) == 1 and not np.any(padding):
        return _dot(x[:, ::strides[0], ::strides[1], ::strides[2]], kernel)
    if x.shape[0] * math.prod(out) <= IM2COL_POSITIONS:
        return _im2col(x, kernel, strides, padding, out)
    return _depth_on_channels(x, kernel, strides, padding, out[0])


def _im2col(x, kernel, strides, padding, out):
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (sd, sh, sw), (od, oh, ow) = strides, out
    columns = [x[:, d:d + (od - 1) * sd + 1:sd, h:h + (oh - 1) * sh + 1:sh, w:w + (ow - 1) * sw + 1:sw]
               for d, h, w in np.ndindex(kernel.shape[:3])]
    return _dot(jnp.concatenate(columns, -1), kernel)


def _dot(x, kernel):
    """As a product of two matrices: the kernel's gradient of one with five axes is made from a transposed copy."""
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel.reshape(-1, kernel.shape[-1]))
    return y.reshape(*x.shape[:-1], -1)


def _depth_on_channels(x, kernel, strides, padding, depth):
    """One 2D convolution: the slices that a depth tap sees stand side by side on the channels, depth folds into batch."""
    kd, kh, kw, features_in, features = kernel.shape
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([x[:, d:d + (depth - 1) * strides[0] + 1:strides[0]] for d in range(kd)], -1)
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kd * features_in, features)
    y = lax.conv_general_dilated(x.reshape(-1, *x.shape[2:]), kernel, strides[1:], padding[1:],
                                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y.reshape(-1, depth, *y.shape[1:])


class Conv(nn.Module):
    """3D convolution with its kernel [kd, kh, kw, in / groups, features], zero-padded by half the kernel.

    groups=2 is computed as two dense convolutions (a grouped 3D convolution has no fast backward pass anywhere); the
    stored kernel keeps the grouped layout, so that weights move to and from other libraries unchanged. With `join` False
    the groups' outputs are a list, which saves a copy where they part again.
    """

    features: int
    kernel_size: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    groups: int = 1
    join: bool = True
    use_bias: bool = False
    dtype: str = 'float32'
    form: str = 'native'
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x):
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
        padding = [(k // 2, k // 2) for k in self.kernel_size]
        pieces = [conv3d(piece, k, self.strides, padding, self.form)
                  for piece, k in zip(jnp.split(x.astype(self.dtype), self.groups, -1),
                                      jnp.split(kernel, self.groups, -1), strict=True)]
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
            pieces = [y + b for y, b in zip(pieces, jnp.split(bias, self.groups), strict=True)]
        if not self.join:
            return pieces
        return pieces[0] if self.groups == 1 else jnp.concatenate(pieces, -1)


def max_pool(x, window, strides, padding):
    """Maximum over windows, one axis after the other as slices: XLA's select-and-scatter gradient is slow on CPUs.

    x [batch, *space, channels]; window, strides by axis; padding (before, after) by axis, with -inf. The values equal
    `nn.max_pool`; between tied maxima the gradient may be shared differently.
    """
    return _pool(x, window, strides, padding, jnp.maximum, -jnp.inf)


def avg_pool(x, window, strides, padding, count_include_pad=True):
    """Mean over windows as sums of slices. x, window, strides, padding as in `max_pool`; padding counts as zeros,
    or not at all where `count_include_pad` is False."""
    total = _pool(x, window, strides, padding, jnp.add, 0)
    if count_include_pad:
        return total / math.prod(window)
    ones = np.ones((1, *x.shape[1:-1], 1), x.dtype)
    return total / _pool(ones, window, strides, padding, np.add, 0)


def _pool(x, window, strides, padding, combine, fill):
    xp = np if isinstance(x, np.ndarray) else jnp
    for axis, (k, s, pad) in enumerate(zip(window, strides, padding, strict=True), 1):
        if k == 1 and s == 1:
            continue
        x = xp.pad(x, [pad if a == axis else (0, 0) for a in range(x.ndim)], constant_values=fill)
        last = (x.shape[axis] - k) // s * s + 1
        pieces = [x[(slice(None),) * axis + (slice(i, i + last, s),)] for i in range(k)]
        y = pieces[0]
        for piece in pieces[1:]:
            y = combine(y, piece)
        x = y
    return x
