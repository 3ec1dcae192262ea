"""What one training step takes, asked of the compiler of the machine that is to run it. No weight is made.

A TPU slice need not be there: its compiler is a package (libtpu) that compiles for any slice by name.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import rich.console
import rich.table
from clu import parameter_overview
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.methods.method import Method, abstract_batch
from covid_jax.report.tables import titled
from covid_jax.runtime import optim
from covid_jax.runtime.state import TrainState, create, jit_step
from covid_jax.start import Run

GIB = 2**30
HBM = {'TPU v4': 32, 'TPU v5 lite': 16, 'TPU v5': 95, 'TPU v5p': 95, 'TPU v6 lite': 32}  # GiB a device, by device_kind
# The compiler asks for no machine's metadata, and shares its lock: it compiles alone, and another process may, too.
ALONE = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8', 'TPU_WORKER_HOSTNAMES': 'localhost',
         'TPU_WORKER_ID': '0', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
EXAMPLES = 'v5e:2x4, v5e:16x16, v6e:2x4, v5p:2x2x2, v4:2x2x1'
COLLECTIVE = re.compile(r'= (.*?) (all-reduce|all-gather|reduce-scatter|(?:ragged-)?all-to-all|collective-permute'
                        r'|collective-broadcast)(-start|-done)?\(')

Moved = tuple[str, str, tuple[int, ...]]  # kind of collective, element type, shape


@dataclasses.dataclass
class Plan:
    """All bytes and FLOPs are of one device and one step.

    state: {part of the training state: bytes}, unpadded.
    activations: bytes that JAX keeps from the forward to the backward pass, before the compiler changes anything.
    memory: {'arguments', 'outputs', 'donated', 'temporaries', 'code': bytes} of the compiled program, with the chip's
      padding; empty where the compiler refused it for want of memory, with its words in `refusal`.
    moved: one entry an array; volumes: those as large as a view of a scan.
    """

    device: str
    devices: int
    hbm: int | None
    batch: int
    overview: str
    parameters: int
    state: dict[str, int]
    activations: int
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    flops: float | None = None
    bytes_accessed: float | None = None
    moved: list[Moved] = dataclasses.field(default_factory=list)
    volumes: list[Moved] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    refusal: str = ''

    @property
    def total(self) -> int:
        """Bytes that the program holds at once: arguments, outputs that reuse none of them, temporaries, code."""
        m = self.memory
        return m['arguments'] + m['outputs'] - m['donated'] + m['temporaries'] + m['code']


def make(run: Run) -> Plan:
    """The Plan of a run's step, as start.build has it: on this host's devices, or on those of a TPU slice that is not there."""
    config = run.config
    device = run.mesh.devices.flat[0]
    train, step = abstract_step(config, run.method, run.mesh)
    params = jax.tree.leaves(train.params)
    state = {'parameters': size(train.params), 'optimizer': size(train.opt_state), 'statistics': size(train.state)}
    if config.train.average:
        state['average'] = size(train.average)
    plan = Plan(device=device.device_kind, devices=run.mesh.size, hbm=hbm(device), batch=config.train.batch,
                overview=parameter_overview.get_parameter_overview(train.params, include_stats=False),
                parameters=sum(x.size for x in params), state=state,
                activations=activations(config, run.method, train) // run.mesh.size)
    began = time.monotonic()
    try:
        compiled = compile_afresh(step)
    except jax.errors.JaxRuntimeError as e:
        if 'RESOURCE_EXHAUSTED' not in str(e):
            raise
        plan.refusal = out_of_memory(str(e))
        return plan
    finally:
        plan.seconds = time.monotonic() - began
    memory: Any = compiled.memory_analysis()
    plan.memory = {'arguments': memory.argument_size_in_bytes, 'outputs': memory.output_size_in_bytes,
                   'donated': memory.alias_size_in_bytes, 'temporaries': memory.temp_size_in_bytes,
                   'code': memory.generated_code_size_in_bytes}
    cost = compiled.cost_analysis() or {}
    plan.flops = cost.get('flops')
    plan.bytes_accessed = cost.get('bytes accessed')
    plan.moved = collectives(compiled.as_text() or '')
    depth, *plane = config.prep.size
    view = (config.views.plane**2 or math.prod(plane)) * min(config.views.depth or depth, depth)
    sizes = {x.size for x in params}  # a gradient as large as a view is summed over the devices, as it should be
    plan.volumes = [moved for moved in plan.moved if math.prod(moved[2]) >= view and math.prod(moved[2]) not in sizes]
    return plan


def abstract_step(config: ConfigDict, method: Method, mesh: Mesh) -> tuple[TrainState, jax.stages.Lowered]:
    """The training state as shapes, and the loop's own jitted step, lowered for the mesh."""
    key = jax.eval_shape(jax.random.key, 0)
    batch = abstract_batch(config, config.train.batch)
    params, state = jax.eval_shape(method.init, key, abstract_batch(config, 1))
    tx = optim.make(config.train, 1, method.frozen(params))  # how many steps an epoch has changes no shape
    train = jax.eval_shape(partial(create, tx=tx, average=config.train.average), params, state)
    return train, jit_step(method, tx, mesh, config.train.average).lower(train, batch, key)


def compile_afresh(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles past the persistent cache: it would hide the time, and cannot read back a program of an absent slice."""
    name = 'jax_persistent_cache_min_compile_time_secs'
    least = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        return lowered.compile()
    finally:
        jax.config.update(name, least)


def activations(config: ConfigDict, method: Method, train: TrainState) -> int:
    """Bytes that the backward pass keeps of a global batch: what two batches keep less what one does, which leaves out what
    does not grow with the batch (parameters)."""
    key = jax.eval_shape(jax.random.key, 0)

    def residuals(params, state, batch, key, step):
        return jax.vjp(lambda p: method.loss(p, state, batch, key, step), params, has_aux=True)[1]

    def kept(scans):
        batch = abstract_batch(config, scans)
        return size(jax.eval_shape(residuals, train.params, train.state, batch, key, train.step))

    return kept(2 * config.train.batch) - kept(config.train.batch)


def size(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def slice_devices(name: str) -> Sequence[jax.Device]:
    """The devices of a TPU slice that need not be there, as 'v5e:2x4': chip and shape."""
    if not re.fullmatch(r'(v4|v5e|v5p|v6e):\d+x\d+(x\d+)?', name):
        raise UserError(f'no TPU slice is called {name!r}: --topology takes chip and shape, as {EXAMPLES}')
    if importlib.util.find_spec('libtpu') is None and 'TPU_LIBRARY_PATH' not in os.environ:
        wanted = [r.partition(';')[0] for r in importlib.metadata.requires('jax') or () if r.startswith('libtpu')]
        raise UserError(f'--topology needs the TPU compiler, which is not installed: pip install "{wanted[0].strip()}"')
    for variable, value in ALONE.items():
        os.environ.setdefault(variable, value)
    jax.config.update('jax_platforms', 'cpu')  # this host's own accelerators are left alone
    options: dict[str, Any] = {'chip_config_name': 'megacore'} if name.startswith('v4') else {}
    if set(re.split('[:x]', name)[1:]) == {'1'}:  # one chip: less than the host that it would be in
        options['chips_per_host_bounds'] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as e:
        raise UserError(f'the TPU compiler knows no slice {name!r}: --topology takes chip and shape, as {EXAMPLES} '
                        f'({" ".join(str(e).split())})') from None


def hbm(device: jax.Device) -> int | None:
    """Bytes of a device's memory, or None where nothing is known."""
    if device.platform == 'tpu':
        return HBM[device.device_kind] * GIB if device.device_kind in HBM else None
    return (device.memory_stats() or {}).get('bytes_limit')


def out_of_memory(message: str) -> str:
    """The line of a compiler's error that says how much was wanted."""
    found = re.search(r'Ran out of memory.*', message)
    return ' '.join((found[0] if found else message).split()).rstrip('.')


def collectives(text: str) -> list[Moved]:
    """Every array that a collective of an optimized program leaves on a device.

    text: HLO. A pair of start and done counts once, and so does a collective that the compiler wrote down several times
    (fused with what runs meanwhile): all with its channel_id. One in a loop counts once.
    """
    moved = []
    seen = set()
    for line in text.splitlines():
        found = COLLECTIVE.search(line)
        if not found or found[3] == '-start':
            continue
        arrays, kind, _ = found.groups()
        if channel := re.search(r'channel_id=(\d+)', line):
            if (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1]))
        for dtype, shape in re.findall(r'\b([a-z]+\d*\w*)\[([\d,]*)\]', arrays):
            moved.append((kind, dtype, tuple(int(n) for n in shape.split(',') if n)))
    return moved


def moved_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of an array in HLO's words, as bf16 and pred, which is a byte."""
    bits = 8 if dtype == 'pred' else int((re.search(r'\d+', dtype) or ['0'])[0])
    return math.prod(shape) * bits // 8


def show(plan: Plan) -> None:
    """Prints a Plan as a table."""
    title = f'one step of {plan.batch} scans on {plan.devices} x {plan.device}'
    table = rich.table.Table('of one device', '')
    table.columns[1].justify = 'right'
    for name, value in lines(plan):
        table.add_row(name, value)
    console = rich.console.Console()
    print(plan.overview)
    titled(console, title, table)
    for line in verdict(plan):
        console.print(line, soft_wrap=True, highlight=False)


def lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """(what, how much) of every row of the table."""
    yield 'parameters', f'{plan.parameters:,}'
    for part, n in plan.state.items():
        yield f'state: {part}', human(n)
    yield 'state, all', human(sum(plan.state.values()))
    yield 'activations for the backward pass, as traced', human(plan.activations)
    for part, n in plan.memory.items():
        yield f'compiled: {part}', human(n)
    if plan.memory:
        yield 'compiled: all at once', human(plan.total)
        yield 'FLOPs a step', '-' if plan.flops is None else f'{plan.flops / 1e9:,.2f} G'
        yield 'bytes read and written a step', '-' if plan.bytes_accessed is None else human(plan.bytes_accessed)
    for kind in sorted({m[0] for m in plan.moved}):
        arrays = [m[1:] for m in plan.moved if m[0] == kind]
        dtype, shape = max(arrays, key=lambda a: moved_bytes(*a))
        yield (f'{kind}: {len(arrays)} arrays, the largest {dtype}[{",".join(map(str, shape))}]',
               human(sum(moved_bytes(*a) for a in arrays)))
    yield 'time to compile', f'{plan.seconds:.0f} s'


def verdict(plan: Plan) -> Iterator[str]:
    """What the numbers mean, a line each."""
    for kind, dtype, shape in plan.volumes:
        yield (f'WARNING: {kind} moves {dtype}[{",".join(map(str, shape))}] between devices, as large as a view of a scan. '
               'Nothing of that size should travel; a method that pairs scans wants an even number on each device')
    have = f' the {human(plan.hbm)} of a device' if plan.hbm else ' a device'
    if plan.refusal:
        yield f'does not fit{have}: {plan.refusal}. Take a smaller --config.train.batch, or more devices'
    elif plan.hbm:
        fits = 'fits' if plan.total <= plan.hbm else 'does not fit'
        yield f'{fits}{have}: {human(plan.total)} at once'


def human(n: float) -> str:
    """1536 -> '1.50 KiB'."""
    if n < 1024:
        return f'{n:.0f} B'
    units = 'B', 'KiB', 'MiB', 'GiB'
    power = min(int(math.log2(n)) // 10, len(units) - 1)
    return f'{n / 1024**power:.2f} {units[power]}'
