import importlib.util
import os

import jax
import pytest
from conftest import small_config

from covid_jax import UserError, methods, plan, start
from covid_jax.methods.method import abstract_batch
from covid_jax.runtime.mesh import make_mesh

HLO = """
  %all-reduce.1 = (f32[8]{0:T(128)S(1)}, bf16[3,3,2]{2,1,0:T(8,128)}, /*index=2*/f32[]{:T(128)}) all-reduce(%a, %b, %c)
  %all-gather.1 = f32[8,4,128]{2,1,0:T(4,128)} all-gather(%p), channel_id=97, dimensions={0}
  %all-gather.2 = f32[8,4,128]{2,1,0:T(4,128)S(1)} all-gather(%q), channel_id=97, dimensions={0}
  %s = (u8[2,5]{1,0}, u8[2,5]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=3
  %d = u8[2,5]{1,0} collective-permute-done(%s)
  %r = f32[16]{0} reduce-scatter(%y), channel_id=97, dimensions={0}
  %t = (pred[4]{0}, s4[8]{0}) all-to-all(%u, %v)
  %f = f32[9]{0} fusion(%all-gather.1), kind=kLoop, metadata={op_name="all-reduce(x)"}
"""


def test_collectives_of_a_program():
    """A pair of start and done, and one that is written down twice, count once."""
    moved = plan.collectives(HLO)
    assert moved == [('all-reduce', 'f32', (8,)), ('all-reduce', 'bf16', (3, 3, 2)), ('all-reduce', 'f32', ()),
                     ('all-gather', 'f32', (8, 4, 128)), ('collective-permute', 'u8', (2, 5)),
                     ('reduce-scatter', 'f32', (16,)), ('all-to-all', 'pred', (4,)), ('all-to-all', 's4', (8,))]
    assert [plan.moved_bytes(*m[1:]) for m in moved] == [32, 36, 4, 16384, 10, 64, 4, 4]


def tiny_config(batch):
    config = small_config()
    config.model.name = '_ResNetTiny'
    config.train.batch = batch
    return config


@pytest.fixture(scope='module')
def tiny():
    """The plan of two scans a device."""
    config = tiny_config(16)
    return config, plan.make(start.build(config, '/nowhere'))


def test_parameters_and_state(tiny):
    """Adam: two moments in float32 and two counts; batch statistics: a mean and a variance for each scale and bias."""
    config, p = tiny
    params = jax.eval_shape(methods.make(config, make_mesh()).init, jax.random.key(0), abstract_batch(config, 1))[0]
    counted = sum(x.size for x in jax.tree.leaves(params))
    named = jax.tree_util.tree_leaves_with_path(params)
    scales = sum(x.size for path, x in named if 'scale' in jax.tree_util.keystr(path))
    assert p.parameters == counted > 1000
    assert p.state == {'parameters': 4 * counted, 'optimizer': 8 * counted + 8, 'statistics': 8 * scales}


def test_the_program_of_this_host(tiny):
    """8 devices, two scans of 8 x 16 x 16 bytes each; the gradients of all parameters are summed over the devices."""
    _, p = tiny
    state, scan = sum(p.state.values()), 2 * 8 * 16 * 16
    assert p.devices == 8 and p.batch == 16 and p.device == 'cpu' and p.hbm is None
    assert state + scan <= p.memory['arguments'] < state + scan + 1000
    assert state <= p.memory['donated'] <= p.memory['outputs'] < p.memory['arguments'] + 1000
    reduced = sum(plan.moved_bytes(*m[1:]) for m in p.moved if m[0] == 'all-reduce')
    assert reduced >= 4 * p.parameters
    assert p.flops > 0 and p.bytes_accessed > 0 and p.seconds > 0 and p.volumes == []


def test_half_the_scans(tiny, tmp_path, capsys):
    """Half the activations and FLOPs, but mixup then pairs scans of two devices: their views travel, which is said loudly."""
    p, half = tiny[1], plan.make(start.build(tiny_config(8), tmp_path))
    assert half.activations == pytest.approx(p.activations / 2, rel=0.01)  # but for the similarities of all pairs
    assert half.activations > 2 * 4 * 6 * 8 * 8 * 4  # a stem's output of both views
    assert half.flops == pytest.approx(p.flops / 2, rel=0.2) and half.parameters == p.parameters
    assert half.memory['temporaries'] < 0.7 * p.memory['temporaries']
    assert {m[0] for m in half.volumes} == {'collective-permute'}
    plan.show(p)
    assert 'WARNING' not in capsys.readouterr().out
    plan.show(half)
    assert 'WARNING' in capsys.readouterr().out


@pytest.mark.parametrize('message,sentence', [
    ('RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required (17.15G) exceeds available HBM (15.75G).',
     'Ran out of memory on HBM, the total memory required (17.15G) exceeds available HBM (15.75G)'),
    ('RESOURCE_EXHAUSTED: something\nelse', 'RESOURCE_EXHAUSTED: something else'),
])
def test_what_a_compiler_without_room_says(message, sentence):
    assert plan.out_of_memory(message) == sentence


@pytest.mark.parametrize('n', [0, 1023, 1024, 1536, 3 << 20, (1 << 30) - 1, 17 << 30, 5 << 40])
def test_bytes_for_people(n):
    """As many as there are, to half of the last digit."""
    number, unit = plan.human(n).split()
    size = 1024 ** ['B', 'KiB', 'MiB', 'GiB'].index(unit)
    assert abs(float(number) * size - n) <= 0.005 * size and (float(number) <= 1024 or unit == 'GiB')


@pytest.mark.parametrize('name', ['v5e', 'nonsense', 'v9:2x2', 'v5e:2x', '../v5e:2x2'])
def test_a_slice_that_is_none(name):
    with pytest.raises(UserError, match='v5e:2x4'):
        plan.slice_devices(name)


def test_without_the_tpu_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.delenv('TPU_LIBRARY_PATH', raising=False)
    with pytest.raises(UserError, match='pip install "libtpu==[0-9.]+'):
        plan.slice_devices('v5e:2x4')


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None and 'TPU_LIBRARY_PATH' not in os.environ,
                                  reason='libtpu, the TPU compiler, is not installed')


@needs_libtpu
@pytest.mark.parametrize('name,count,kind,gib', [
    ('v5e:2x4', 8, 'TPU v5 lite', 16), ('v5e:1x1', 1, 'TPU v5 lite', 16), ('v5e:16x16', 256, 'TPU v5 lite', 16),
    ('v6e:2x4', 8, 'TPU v6 lite', 32), ('v5p:2x2x2', 8, 'TPU v5', 95), ('v4:2x2x1', 4, 'TPU v4', 32)])
def test_slices(name, count, kind, gib):
    devices = plan.slice_devices(name)
    assert len(devices) == count and devices[0].device_kind == kind and plan.hbm(devices[0]) == gib * 2**30


@needs_libtpu
def test_a_shape_that_the_tpu_compiler_refuses():
    with pytest.raises(UserError, match='v5e:3x3'):
        plan.slice_devices('v5e:3x3')


@needs_libtpu
def test_the_program_of_a_slice(tiny, tmp_path):
    p = plan.make(start.build(tiny[0], tmp_path, plan.slice_devices('v5e:2x4')))
    assert p.device == 'TPU v5 lite' and p.devices == 8
    assert p.parameters == tiny[1].parameters and p.state == tiny[1].state
    assert p.memory['arguments'] > sum(p.state.values()) and p.total < p.hbm == 16 * 2**30
    reduced = sum(plan.moved_bytes(*m[1:]) for m in p.moved if m[0] == 'all-reduce')
    assert reduced >= 2 * p.parameters and p.volumes == [] and not p.refusal
    assert any('fits the 16.00 GiB' in line for line in plan.verdict(p))


@needs_libtpu
def test_what_does_not_fit_is_an_answer(tmp_path, capsys):
    config = small_config()
    with config.unlocked():
        config.prep.size, config.views.depth = (256, 1024, 1024), 256
    p = plan.make(start.build(config, tmp_path, plan.slice_devices('v5e:2x4')))
    assert p.memory == {} and p.refusal
    plan.show(p)
    assert 'does not fit the 16.00 GiB' in capsys.readouterr().out
