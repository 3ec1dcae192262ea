"""3D convolutions, channels last, in the form that is fast on the platform at hand.

XLA's own 3D convolution on a CPU is up to 25 times slower than it need be (stride or groups in the backward pass have no
fast path), so there is a second, equal form made of 2D convolutions and matrix products. Which one runs is a field of the
network, chosen from the mesh's platform; both are tested against `lax.conv_general_dilated`, gradients included.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = Sequence[tuple[int, int]]  # zeros before and after, by axis
NONE = ((0, 0),) * 3
IM2COL_POSITIONS = 256  # below this many output positions one matrix product beats a convolution (CPU, measured)


def form_for(platform: str) -> str:
    """'planar' on a CPU, 'flat' for ONNX, whose converter knows no 3D convolution, 'native' on GPU and TPU."""
    return {'cpu': 'planar', 'onnx': 'flat'}.get(platform, 'native')


def conv3d(x: jax.Array, kernel: jax.Array, strides: Sequence[int] = (1, 1, 1), padding: Padding = NONE,
           form: str = 'native') -> jax.Array:
    """3D convolution (cross-correlation, as in every deep-learning library).

    Args:
      x: [batch, depth, height, width, in].
      kernel: [kd, kh, kw, in, out].
      strides, padding: by axis (depth, height, width); zero padding, (before, after).
      form: 'native' is XLA's 3D convolution, 'planar' the CPU form, 'flat' a 2D convolution whatever the batch size. A kernel one
        slice deep is a 2D convolution in all.

    Returns: [batch, depth', height', width', out].
    """
    if form == 'native' and kernel.shape[0] > 1:
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))
    taps = kernel.shape[:3]
    out = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(x.shape[1:4], taps, strides, padding, strict=True)]
    if form == 'planar':
        if math.prod(taps) == 1 and not np.any(padding):
            return _dot(x[:, ::strides[0], ::strides[1], ::strides[2]], kernel)
        if x.shape[0] * math.prod(out) <= IM2COL_POSITIONS:
            return _im2col(x, kernel, strides, padding, out)
    return _depth_on_channels(x, kernel, strides, padding, out[0])


def _im2col(x, kernel, strides, padding, out):
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    columns = [_window(x, tap, out, strides) for tap in np.ndindex(kernel.shape[:3])]
    return _dot(jnp.concatenate(columns, -1), kernel)


def _dot(x, kernel):
    """As a product of two matrices: the kernel's gradient of one with five axes is made from a transposed copy."""
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel.reshape(-1, kernel.shape[-1]))
    return y.reshape(*x.shape[:-1], -1)


def _depth_on_channels(x, kernel, strides, padding, depth, groups=1):
    """One 2D convolution: the slices that a depth tap sees stand side by side on the channels, depth folds into batch.
    `groups` other than 1 asks for a kernel one slice deep."""
    kd, kh, kw, features_in, features = kernel.shape
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([x[:, d:d + (depth - 1) * strides[0] + 1:strides[0]] for d in range(kd)], -1)
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kd * features_in, features)
    y = lax.conv_general_dilated(x.reshape(-1, *x.shape[2:]), kernel, strides[1:], padding[1:],
                                 dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)
    return y.reshape(-1, depth, *y.shape[1:])


def depthwise(x: jax.Array, kernel: jax.Array, strides: Sequence[int] = (1, 1, 1), padding: Padding = NONE,
              form: str = 'native') -> jax.Array:
    """Depthwise 3D convolution: every channel has a kernel of its own, and sees no other.

    Args:
      x: [batch, depth, height, width, channels].
      kernel: [kd, kh, kw, 1, channels].
      strides, padding: as in `conv3d`.
      form: 'native' is XLA's grouped convolution, right on GPU and TPU (of two dimensions where the kernel is one slice
        deep); 'planar', the CPU form, is the sum over taps of a shifted copy times the tap; 'flat' that of 2D convolutions over
        the slices of the kernel.

    Returns: [batch, depth', height', width', channels].
    """
    if form == 'planar':
        return _shifted(x, kernel, tuple(strides), tuple(map(tuple, padding)))
    taps = kernel.shape[0]
    depth = (x.shape[1] + sum(padding[0]) - taps) // strides[0] + 1
    if taps == 1:
        return _depth_on_channels(x, kernel, strides, padding, depth, groups=x.shape[-1])
    if form == 'flat':
        x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
        reach = (depth - 1) * strides[0] + 1
        return sum(_depth_on_channels(x[:, d:d + reach], kernel[d:d + 1], strides, (NONE[0], *padding[1:]), depth, x.shape[-1])
                   for d in range(taps))
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
                                    feature_group_count=x.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(x, kernel, strides, padding):
    """The sum in float32, in one pass over x; what autodiff makes of it is slow, so the backward pass is written out."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    taps = kernel.shape[:3]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(wide)
    padded = lax.optimization_barrier(padded)  # else XLA pads and converts anew for each tap
    out = [(n - k) // s + 1 for n, k, s in zip(padded.shape[1:4], taps, strides, strict=True)]
    return sum(_window(padded, tap, out, strides) * kernel[tap][0] for tap in np.ndindex(taps)).astype(x.dtype)


def _shifted_forward(x, kernel, strides, padding):
    return _shifted(x, kernel, strides, padding), (x, kernel)


def _shifted_backward(strides, padding, saved, dy):
    """dx is the same sum over dy, spread by the strides, with the kernel turned about. dw is a sum of products for each
    tap: row by row, so that what all taps read stays in the cache, and within an image, so that rows of a batch that
    lie on several devices meet only as numbers of the kernel's size."""
    x, kernel = saved
    taps = kernel.shape[:3]
    spread = [(k - 1 - before, n - 1 + before - (m - 1) * s, s - 1) for k, (before, _), n, m, s in
              zip(taps, padding, x.shape[1:4], dy.shape[1:4], strides, strict=True)]
    spread_dy = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    dx = _shifted(spread_dy, jnp.flip(kernel, (0, 1, 2)), (1, 1, 1), NONE)

    wide = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    row = dy.shape[1], 1, dy.shape[3]

    def add_row(totals, i):
        rows = lax.dynamic_slice_in_dim(x, i * strides[1], taps[1], 2).astype(wide)
        d = lax.dynamic_slice_in_dim(dy, i, 1, 2).astype(wide)
        products = (_window(rows, tap, row, strides) * d for tap in np.ndindex(taps))
        return tuple(total + product for total, product in zip(totals, products, strict=True)), None

    zeros = (jnp.zeros_like(dy[:, :, :1], wide),) * math.prod(taps)
    totals, _ = lax.scan(add_row, zeros, np.arange(dy.shape[2]))
    dw = jnp.sum(jnp.stack([jnp.sum(t, (1, 2, 3)) for t in totals]), 1)
    return dx.astype(x.dtype), dw.reshape(kernel.shape).astype(kernel.dtype)


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _window(x, start, size, strides):
    """[batch, *size, channels]: what begins at `start` and is read in steps of `strides`."""
    return x[(slice(None), *(slice(i, i + (n - 1) * s + 1, s) for i, n, s in zip(start, size, strides, strict=True)))]


def zeros(key: jax.Array, shape: Sequence[int], fan_in: int) -> jax.Array:
    """The start of a bias. Every `bias_init` takes the numbers that an output sees too: torch's start depends on them."""
    return jnp.zeros(shape)


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
    bias_init: Callable = zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array | list[jax.Array]:
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
        padding = [(k // 2, k // 2) for k in self.kernel_size]
        pairs = zip(jnp.split(x.astype(self.dtype), self.groups, -1), jnp.split(kernel, self.groups, -1), strict=True)
        pieces = [conv3d(piece, k, self.strides, padding, self.form) for piece, k in pairs]
        if self.use_bias:
            bias = self.param('bias', self.bias_init, (self.features,), math.prod(shape[:-1])).astype(self.dtype)
            pieces = [y + b for y, b in zip(pieces, jnp.split(bias, self.groups), strict=True)]
        if not self.join:
            return pieces
        return pieces[0] if self.groups == 1 else jnp.concatenate(pieces, -1)


class DepthwiseConv(nn.Module):
    """Depthwise convolution with its kernel [kd, kh, kw, 1, channels], zero-padded by half the kernel."""

    kernel_size: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)
    use_bias: bool = False
    dtype: str = 'float32'
    form: str = 'native'
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    bias_init: Callable = zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', self.kernel_init, (*self.kernel_size, 1, x.shape[-1])).astype(self.dtype)
        padding = [(k // 2, k // 2) for k in self.kernel_size]
        y = depthwise(x.astype(self.dtype), kernel, self.strides, padding, self.form)
        if self.use_bias:
            y += self.param('bias', self.bias_init, x.shape[-1:], math.prod(self.kernel_size)).astype(self.dtype)
        return y
