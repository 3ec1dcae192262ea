"""Files of weights for tests."""

import json
import struct

import numpy as np


def write_safetensors(path, tensors):
    """float32 arrays by name, as a .safetensors file. Returns its path."""
    header = {}
    blocks = []
    at = 0
    for name, x in tensors.items():
        block = np.asarray(x, np.float32).tobytes()
        header[name] = {'dtype': 'F32', 'shape': list(x.shape), 'data_offsets': [at, at + len(block)]}
        at += len(block)
        blocks.append(block)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(blocks))
    return path
