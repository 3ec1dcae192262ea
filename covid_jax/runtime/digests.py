"""Digests beside the arrays of a checkpoint: what is read again is what was saved, or it is damaged."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

SEAL = 'seal'


def of_arrays(tree: Any) -> dict[str, str]:
    """{name: digest} of each array of a tree; dtype and shape count too."""
    return {name_of(path): _of_array(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple) -> str:
    """What a leaf of this path is called here: a field, a key and a place of a tuple are named alike, as they are in a checkpoint."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a digest of itself."""
    return {**record, SEAL: _of_json(record)}


def is_whole(record: Any) -> bool:
    """Whether a record is as it was when it was sealed."""
    return isinstance(record, dict) and record.get(SEAL) == _of_json({name: value for name, value in record.items() if name != SEAL})


def _of_array(x):
    values = np.ascontiguousarray(x)
    digest = hashlib.sha256(f'{values.dtype} {np.shape(x)} '.encode())
    digest.update(values.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _of_json(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
