"""Whether this machine can run it all: what is installed, what computes, what is read, and what to do where something will not work."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from covid_jax import UserError
from covid_jax import config as configs

OURS = 'covid-jax'
SHOWN = ('jax', 'flax', 'optax', 'numpy')  # whose versions are told where they are right, too
LEAST_DISK = 2  # GiB: less does not hold the prepared scans and checkpoints of a small run
LEAST_MEMORY = 2  # GiB: less does not hold jax, a batch and the processes that prepare scans
SIZE = 256  # of the matrices that are multiplied
CLOSE = 0.05  # a product may differ so much, relatively, on a device that multiplies in less than float32
ACCELERATORS = {'/dev/nvidia0': 'cuda', '/dev/accel0': 'tpu', '/dev/vfio/0': 'tpu'}  # device file -> the extra that makes jax see it
GIB = 2**30


class Check(NamedTuple):
    """what: is looked at; found: what there is; advice: what to do about it, else ''; works: False where something will not work."""

    what: str
    found: str
    advice: str = ''
    works: bool = True


def checks(workdir: Path | str = '.', data: Path | str = '', source: str = '', classes: Sequence[str] = ()) -> Iterator[Check]:
    """All Checks, one after the other. workdir: where runs would live. data, source, classes: as config.data.root, source and classes of data
    that are to be looked for, '' for none."""
    yield from packages()
    yield from machine(Path(workdir))
    yield from devices()
    yield from readers()
    if data:
        yield exams(str(data), source, classes)


def packages() -> Iterator[Check]:
    """Of python and of what the project depends on."""
    needed, python = _requirements()
    here = platform.python_version()
    right = here in SpecifierSet(python, prereleases=True)
    yield Check('python', here, '' if right else f'python {python} is needed: make a virtual environment of such a one', right)
    yield Check(OURS, _version(OURS) or 'not installed, run from its folder')
    extras: dict[str, list[Requirement]] = {}
    for one in needed:
        if one.marker and 'extra' in str(one.marker):
            for extra in _extras():
                if one.marker.evaluate({'extra': extra}):
                    extras.setdefault(extra, []).append(one)
            continue
        if one.marker and not one.marker.evaluate():
            continue
        version = _version(one.name)
        wanted = f'{one.name}{one.specifier}'
        if version is None or not one.specifier.contains(version, prereleases=True):
            yield Check(one.name, version or 'not installed', f'pip install "{wanted}"', False)
        elif one.name in SHOWN:
            yield Check(one.name, version)
    there = [extra for extra, of in extras.items() if all(map(_is_there, of))]
    yield Check('extras', f'{", ".join(there) or "none"} of {", ".join(extras)}')


def machine(workdir: Path) -> Iterator[Check]:
    """Of cores, memory, and the disk that a folder is on or would be."""
    yield Check('cores', f'{len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}')
    free = _memory()
    if free is not None:
        enough = free >= LEAST_MEMORY
        yield Check('memory', f'{free:.1f} GiB free', '' if enough else f'{LEAST_MEMORY} GiB are needed: end other programs', enough)
    place = next(path for path in (workdir.absolute(), *workdir.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Check('disk', f'{workdir} cannot be written to', 'give another --workdir', False)
        return
    disk = shutil.disk_usage(place).free / GIB
    enough = disk >= LEAST_DISK
    yield Check('disk', f'{disk:.1f} GiB free for {workdir}', '' if enough else f'{LEAST_DISK} GiB are needed: give another --workdir', enough)


def devices() -> Iterator[Check]:
    """Of what jax computes on, whether it is all that there is, and whether it computes."""
    try:
        import jax

        found = jax.devices()
    except (ImportError, RuntimeError) as e:  # jax's own words are of several lines
        yield Check('devices', ' '.join(str(e).split()), 'mend the installation of jax, or set JAX_PLATFORMS=cpu', False)
        return
    kinds = Counter(device.device_kind for device in found)
    memory = (found[0].memory_stats() or {}).get('bytes_limit') if found[0].platform != 'cpu' else None
    of_each = f', {memory / GIB:.0f} GiB each' if memory else ''
    yield Check('devices', f'{", ".join(f"{n} x {kind}" for kind, n in kinds.items())}{of_each}')
    extra = _unseen() if found[0].platform == 'cpu' else ''
    if extra:
        asked = os.environ.get('JAX_PLATFORMS') == 'cpu'
        what = {'cuda': 'an NVIDIA GPU', 'tpu': 'a TPU'}[extra]
        yield Check('accelerator', f'{what} is there, and jax does not see it',
                    'unset JAX_PLATFORMS, which is cpu' if asked else f'pip install "{OURS}[{extra}]"', asked)
    yield _computes(found)


def readers() -> Iterator[Check]:
    """Of the compressions of DICOM."""
    from pydicom.pixels import get_decoder

    from covid_jax.scans.dicom.header import PLUGINS

    lacking = {plugin: syntax.name for syntax, plugin in PLUGINS.items() if plugin not in get_decoder(syntax).available_plugins}
    package = {'gdcm': 'python-gdcm', 'pillow': 'Pillow', 'pydicom': 'pydicom'}
    if not lacking:
        yield Check('DICOM', f'uncompressed and {len(PLUGINS)} compressions are read')
    for plugin, name in lacking.items():
        yield Check('DICOM', f'{name} is not read', f'pip install {package[plugin]}', False)


def exams(root: str, source: str = '', classes: Sequence[str] = ()) -> Check:
    """Of a data set: how many exams of which class there are. Nothing of a scan is read."""
    from covid_jax import sources
    from covid_jax.sources.exams import class_index, class_names

    if not os.path.exists(root):
        return Check('data', f'there is nothing at {root}', 'give another path', False)
    config = configs.base()
    config.data.update(root=root, source=source or sources.told(root, classes or config.data.classes), classes=tuple(classes) or config.data.classes)
    if not config.data.source:
        return Check('data', f'{root} is no CSV file, and no folder of folders called after classes',
                     f'say what it is by --source, one of {", ".join(sources.SOURCES)}', False)
    try:
        found = [exam for part in sources.parts_of(config.data, lambda line: None) for exam in part]
        count = Counter(class_index(exam.label, config.data.classes) for exam in found)
    except UserError as e:
        return Check('data', str(e).replace('--config.data.', '--'), 'covid-jax audit says more', False)
    names = (*class_names(config.data.classes), 'without a label')
    patients = len({exam.patient for exam in found})
    counted = ', '.join(f'{count[label]} {names[label]}' for label in sorted(count))
    lacking = [name for label, name in enumerate(names[:-1]) if not count[label]]
    said = f'{len(found)} exams of {patients} patients, read as --source={config.data.source}: {counted}'
    if set(count) <= {-1}:
        return Check('data', said, 'no label, so nothing is learnt to tell apart: covid-jax predict answers about them')
    return Check('data', said, f'no exam of {", ".join(lacking)}: nothing can be told apart' if lacking else '', not lacking)


def _requirements():
    """(what is depended on, which python) as the installation says, or the project's own file where it is run from its folder."""
    try:
        meta = importlib.metadata.metadata(OURS)
        return [Requirement(line) for line in importlib.metadata.requires(OURS) or ()], meta['Requires-Python']
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / 'pyproject.toml').read_text(encoding='utf-8'))['project']
        return [Requirement(line) for line in project['dependencies']], project['requires-python']


def _extras():
    return importlib.metadata.metadata(OURS).get_all('Provides-Extra') or []


def _is_there(one):
    """Whether a requirement is installed, with what its own extras ask for."""
    if _version(one.name) is None:
        return False
    below = [Requirement(line) for line in importlib.metadata.requires(one.name) or ()] if one.extras else []
    return all(_is_there(each) for each in below for extra in one.extras
               if each.marker and 'extra' in str(each.marker) and each.marker.evaluate({'extra': extra}))


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory():
    """GiB that are free, None where the system does not say."""
    try:
        for line in Path('/proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return None


def _unseen():
    """The extra of an accelerator that is there, '' where there is none."""
    if shutil.which('nvidia-smi'):
        try:
            listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=20, check=False)
            if listed.stdout.startswith('GPU '):
                return 'cuda'
        except (OSError, subprocess.TimeoutExpired):
            pass
    return next((extra for device, extra in ACCELERATORS.items() if os.path.exists(device)), '')


def _computes(found):
    """Whether a product is compiled, and right, on each device."""
    import jax
    import numpy as np

    a = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    begun = time.monotonic()
    for device in found:
        try:
            product = np.asarray(jax.jit(lambda x: x @ x)(jax.device_put(a, device)))
        except Exception as e:  # whatever it is, it is what does not work
            return Check('computes', f'{device.device_kind}: {" ".join(str(e).split())[:200]}', 'mend the driver, or set JAX_PLATFORMS=cpu', False)
        if not np.allclose(product, a @ a, atol=CLOSE * np.abs(a @ a).max()):
            return Check('computes', f'{device.device_kind} multiplies wrongly', 'do not trust what it computes', False)
    return Check('computes', f'a product is compiled and right on each of {len(found)}, in {time.monotonic() - begun:.1f} s')
