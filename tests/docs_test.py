"""README.md, CONTRIBUTING.md and docs/*.md: links lead somewhere, commands name configs and flags that exist, and what a page tells
to do works when it is done word for word."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
from dicoms import ct
from ml_collections import ConfigDict

from covid_jax import UserError, cli, commands, flags, phantom
from covid_jax.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').glob('*.md'))]
by_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
FENCED = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
ASSIGNED = re.compile(r'^\s*([A-Z]+)="(.*)"$', re.M)
FLAG = re.compile(r'(--[\w.]+(?:=(?:"[^"]*"|\S+))?)\s*')
PLACEHOLDER = re.compile(r'configs/CONFIG|=FILE\b|[.]STAGE[.=]|[.]FIELD\b|:ROW\b')
EXAMPLES = '\n## Worked examples\n'
NOT_COPIED = shutil.ignore_patterns('.*', '__pycache__', 'runs', 'build', '*.egg-info', 'shared')


class Block(NamedTuple):
    """A fenced block of a page: its language, the sentence before it, its text."""

    language: str
    before: str
    text: str


def blocks(text):
    """The fenced blocks, in order."""
    return [Block(found[1], ' '.join(text[:found.start()].strip().split('\n\n')[-1].split()), found[2]) for found in FENCED.finditer(text)]


def code_lines(text):
    """Lines of fenced and of indented blocks, each whole where it runs on, with the variables of the page in place."""
    fenced = '\n'.join(block.text for block in blocks(text))
    indented = '\n'.join(line for line in FENCED.sub('', text).splitlines() if line.startswith('    '))
    code = re.sub(r'\\\n\s*', '', f'{fenced}\n{indented}')
    variables = {}
    for line in code.splitlines():
        if found := ASSIGNED.match(line):
            variables[found[1]] = found[2]
        for name, value in variables.items():
            line = line.replace(f'${name}', value)
        if line.strip() and not ASSIGNED.match(line):
            yield line.strip()


def leading_flags(text):
    """['--config.seeds=3'] of '--config.seeds=3   each in its own folder'."""
    found = []
    while part := FLAG.match(text):
        found.append(part[1].replace('"', ''))
        text = text[part.end():]
    return found


@functools.cache
def refusal(line):
    """Why a line of code names what does not exist, or None. Lines that are no command of this project are not judged."""
    line = re.split(' {3,}', line)[0].split(' && ')[-1]
    if PLACEHOLDER.search(line):
        return None
    main = re.search(r'python3? -m covid_jax\.main\b(.*)', line)
    command = re.match(r'(?:\S*/)?covid-jax (\w+)(.*)', line)
    script = re.search(r'python3? (scripts/\S+)(.*)', line)
    try:
        if main and '--help' not in main[1]:
            flags.parse(shlex.split(main[1]))
        elif command:
            context = typer.main.get_command(cli.app).commands[command[1]].make_context(command[1], shlex.split(command[2]))
            if command[1] in ('plan', 'prepare'):
                flags.parse(context.args)
        elif script:
            text = (ROOT / script[1]).read_text(encoding='utf-8')
            return next((f'{script[1]} has no {flag}' for flag in re.findall(r'--[\w-]+', script[2]) if f"'{flag}'" not in text), None)
        elif line.startswith('--'):
            given = leading_flags(line)
            named = any(flag.startswith('--config=') for flag in given)
            flags.parse(given if named else ['--config=configs/supervised.py', *given])
    except (UserError, KeyError, OSError, cli.USAGE_ERROR) as e:
        return f'{line}: {e}'
    return None


# Commands that the slow test does not follow, by what is in them, and why. A new one is followed by itself, or belongs here.
NOT_FOLLOWED = {
    '--distributed': 'needs a TPU pod or a SLURM job',
    '--coordinator=HOST:PORT': 'needs several hosts; main_test runs two',
    '--topology': 'needs the TPU compiler, which the project does not ask for; plan_test',
    'scripts/mutate_fidelity.py': 'runs the tests of a copy, 2 to 8 minutes for all rows',
    'scripts/best_covid_ct.py': 'trains fourteen recipes in processes of its own, for hours; recipes_test runs them small',
    'scripts/bench_prepare.py': 'measures against MONAI and SimpleITK, which the project does not ask for',
    'scripts/bench_augment.py': 'measures against MONAI, which the project does not ask for',
    '--config.track=wandb': 'needs wandb, which the project does not ask for; track_test',
    'scripts/bench_emd.py': 'takes minutes and gigabytes of memory; its law is tested in ranking/',
}
COMMAND = re.compile(r'(\S*python3? (-m covid_jax\.\w+|scripts/\S+)|(\S*/)?covid-jax \w+) (?!--help)\S|--\w')


def to_follow(text):
    """The commands of a page, each once, without those that NOT_FOLLOWED names and those that other tests follow word for word."""
    lines = [line.split(' && ')[-1] for line in [*code_lines(text), *commands_in_prose(text)]]
    return [line for line in dict.fromkeys(lines) if COMMAND.match(line) and not any(part in line for part in NOT_FOLLOWED)]


def fields(section, prefix=''):
    """Dotted names of the sections and fields of a config."""
    for name, value in section.items():
        yield prefix + name
        if hasattr(value, 'items'):
            yield from fields(value, f'{prefix}{name}.')


def every_field():
    """Names of the sections and fields of all config files, with those of their stages, and of all methods."""
    of_methods = {f'{method}.{field}' for method, module in METHODS.items() for field in module.DEFAULTS}
    return of_methods.union(*(fields(flags.load(str(path))) for path in (ROOT / 'configs').glob('*.py')))


def in_prose(text):
    """What stands between backticks in sentences, each in one line."""
    prose = '\n'.join(line for line in FENCED.sub('', text).splitlines() if not line.startswith('    '))
    return [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', prose)]


def commands_in_prose(text):
    """Those that are given whole, with what they take."""
    return [code for code in in_prose(text) if re.match(r'(\S*python3? scripts/\S+|\S*python3? -m covid_jax|covid-jax \w+) \S', code)]


def fields_in_prose(text):
    """Those that sentences name as --config.FIELD."""
    for code in in_prose(text):
        yield from (name.strip('.') for name in re.findall(r'--(?:no)?config\.([\w.]+)', code) if not re.search(r'\b[A-Z]+\b', name))


def slugs(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r'^#+ (.*)$', FENCED.sub('', text), re.M)
    return {re.sub(r'[^\w\- ]', '', re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()).replace(' ', '-') for heading in headings}


@by_page
def test_every_link_leads_somewhere(page):
    dead = []
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
        if target.startswith(('https:', 'http:')):
            continue
        path, _, anchor = target.partition('#')
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in slugs(there.read_text(encoding='utf-8'))):
            dead.append(target)
    assert not dead


@pytest.fixture
def quick_flags(monkeypatch):
    """absl writes the whole config as YAML to say what a flag's default is, which takes the most of parsing and is not looked at here."""
    monkeypatch.setattr(ConfigDict, '__str__', object.__repr__)


@by_page
def test_every_command_names_configs_and_flags_that_exist(page, quick_flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding='utf-8').partition(EXAMPLES)[0]  # these make the config that they name; the slow test runs them
    assert not list(filter(None, map(refusal, [*code_lines(text), *commands_in_prose(text)])))


def test_every_field_in_a_sentence_exists():
    known = every_field()
    assert not {(page.name, name) for page in PAGES for name in fields_in_prose(page.read_text(encoding='utf-8')) if name not in known}


def test_each_number_of_the_readme_is_in_the_section_of_its_system():
    """And they are in the same order: docs/systems.md is where all that was measured stands."""
    readme, systems = ((ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'docs/systems.md'))
    rows = re.findall(r'^\| .*`configs/(\w+\.py)`.*\|$', readme, re.M)
    sections = re.split(r'^## ', systems, flags=re.M)[1:]
    assert len(rows) == 6
    for config, section, row in zip(rows, sections, re.findall(r'^\| .*`configs/.*$', readme, re.M), strict=False):
        numbers = re.findall(r'\d\.\d{3}', row)
        assert numbers and f'configs/{config}' in section and not [n for n in numbers if n not in section], config


@pytest.mark.parametrize('line', [
    'python -m covid_jax.main --config=configs/cmc.py --config.train.epoch=3', '.venv/bin/python -m covid_jax.main --config=configs/cnc.py',
    'python -m covid_jax.main --config=configs/cmc.py:model9', 'python -m covid_jax.main --config=configs/cmc.py --work=runs',
    'covid-jax audit scans --roots=x', 'covid-jax plan --config=configs/cmc.py --topo=v5e:2x4', 'covid-jax tabel --config=configs/cmc.py',
    '--config.seed=1 --config.train.epoch=3    words', '--coordinators=HOST:PORT    words',
    'python scripts/traps.py --nothing', 'python scripts/gone.py', 'CONF && python -m covid_jax.main --config=configs/cmc.py --config.train.epochs=many'])
def test_a_flag_a_config_or_a_command_that_is_none_is_told(line, quick_flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert refusal(line)


def test_variables_and_lines_that_run_on_are_read_whole():
    page = 'Text.\n\n    C="python -m covid_jax.main --config=configs/cmc.py"\n    $C --config.seeds=3 \\\n        --config.folds=5\n\n```sh\nls\n```\n'
    assert list(code_lines(page)) == ['ls', 'python -m covid_jax.main --config=configs/cmc.py --config.seeds=3 --config.folds=5']


def examples():
    """The blocks below the worked examples of docs/design.md, each with the file that the sentence before it names last."""
    page = (ROOT / 'docs' / 'design.md').read_text(encoding='utf-8')
    for block in blocks(page.partition(EXAMPLES)[2]):
        files = re.findall(r'`([\w/]+\.py)`', block.before)
        yield block, Path(files[-1]) if files else None


def parted(diff):
    """What goes from a file, and what comes in its place."""
    lines = diff.splitlines(keepends=True)
    return (''.join(line[1:] for line in lines if line[0] in kinds) for kinds in ('-', '+'))


def test_the_lines_that_an_example_changes_are_in_their_files_once():
    changed = [(file, *parted(block.text)) for block, file in examples() if block.language == 'diff']
    assert len(changed) >= 9
    for file, old, new in changed:
        assert old != new and (ROOT / file).read_text(encoding='utf-8').count(old) == 1, (file, old)
    written = [file for block, file in examples() if block.language == 'python' and 'Write' in block.before]
    assert len(written) >= 6 and not [file for file in written if (ROOT / file).exists()]


def copy_of_the_project(folder):
    return shutil.copytree(ROOT, folder, ignore=NOT_COPIED)


def followed(line, project, seconds=900):
    """What a command of a page prints in a copy of the project, whose environment is on."""
    line = re.sub(r'^(\S*/)?python3? ', f'{sys.executable} ', line)
    line = re.sub(r'^covid-jax ', f'{sys.executable} -m covid_jax.cli ', line)
    environment = {**os.environ, 'PYTHONPATH': f'{project}:{project}/tests', 'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_PLATFORMS': 'cpu'}
    result = subprocess.run(['bash', '-euc', line], cwd=project, env=environment, text=True, capture_output=True, timeout=seconds)
    assert result.returncode == 0, f'{line}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}'
    return result.stdout


@pytest.mark.slow  # two minutes of one core, of which most is compiling
def test_the_worked_examples_are_followed_word_for_word(tmp_path):
    project = copy_of_the_project(tmp_path / 'project')
    done = {'python': 0, 'diff': 0, 'sh': 0}
    for block, file in examples():
        done[block.language] += 1
        if block.language == 'sh':
            for line in block.text.splitlines():
                told = followed(line, project)
                assert 'pytest' not in line or re.search(r'\d+ passed', told), line
        elif block.language == 'diff':
            old, new = parted(block.text)
            text = (project / file).read_text(encoding='utf-8')
            assert text.count(old) == 1, (file, old)
            (project / file).write_text(text.replace(old, new))
        else:
            at_the_end = 'Add to the end of' in block.before
            assert (project / file).exists() == at_the_end, file
            (project / file).write_text(((project / file).read_text(encoding='utf-8') if at_the_end else '') + block.text)
    assert min(done.values()) >= 4
    assert (project / 'runs' / 'smoothed' / 'results.md').exists()
    followed(f'{sys.executable} -m pytest -n 0 -q tests/house_test.py tests/imports_test.py', project)
    followed(f'{sys.executable} -m ruff check .', project)


@pytest.mark.slow  # minutes: most is compiling, one process a page
@pytest.mark.parametrize('page', [*(page.name for page in PAGES if to_follow(page.read_text(encoding='utf-8').partition(EXAMPLES)[0])), '--help'])
def test_every_command_is_followed(page, tmp_path):
    """With tiny networks, scans and trainings, in a folder with nothing in it (follow.py)."""
    texts = {path.name: path.read_text(encoding='utf-8').partition(EXAMPLES)[0] for path in PAGES} | {'--help': indented(commands.EXAMPLES)}
    lines = to_follow(texts[page])
    if not (ROOT.parent / 'shared' / 'data').is_dir() and re.search('COVID-CT|VOLUMES|chest-xray', str(lines)):
        pytest.skip('reads ../shared/data')
    (tmp_path / 'lines.json').write_text(json.dumps(lines))
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_PLATFORMS': 'cpu'}
    result = subprocess.run([sys.executable, ROOT / 'tests' / 'follow.py', 'lines.json'], cwd=tmp_path, env=environment, text=True,
                            capture_output=True, timeout=3000)
    assert result.returncode == 0, result.stderr[-20000:]
    assert len(re.findall('^followed ', result.stderr, re.M)) == len(lines) > 0


def indented(examples):
    """The commands of --help, each of which stands above what it does."""
    return '\n'.join(f'  {line}' for line in examples.splitlines() if not line.startswith('      '))


def dicom_series(folder, index, label):
    """A phantom as a series of DICOM slices."""
    voxels, _, (thickness, *pixel) = phantom.from_address(f'phantom:9:{index}:{label}')
    folder.mkdir(parents=True)
    for n, plane in enumerate(voxels, 1):
        stored = (plane + 1024).clip(0).astype('<u2')
        ct(folder / f'IM{n:03}.dcm', stored, -round(thickness * n, 3), n, PatientID=folder.name, SeriesInstanceUID=f'1.2.{index}',
           PixelSpacing=[round(mm, 4) for mm in pixel], SliceThickness=round(thickness, 3))


TINY = "--config.model.name=_ResNetTiny --config.prep.size='(8,16,16)' --config.train.epochs=1 --config.train.batch=2"


@pytest.mark.slow  # two minutes of one core
def test_the_first_page_is_followed_with_three_scans_and_then_with_ten(tmp_path):
    """The commands of three scans as they are; those of thirty with a tiny network, on ten volumes of noise."""
    project = copy_of_the_project(tmp_path / 'project')
    page = (ROOT / 'docs' / 'start.md').read_text(encoding='utf-8')
    three = page[page.index('## Three scans'):page.index('## Thirty scans')]
    thirty = page[page.index('## Thirty scans'):page.index('## A scan of which')]
    table = three[:three.index('3. Look')]
    rows = re.findall(r'^ +((?:path|scans)[/,].*)$', table, re.M)
    assert len(rows) == 4
    (project / 'scans.csv').write_text('\n'.join(rows) + '\n')
    for index, row in enumerate(rows[1:]):
        path, label, *_ = row.split(',')
        dicom_series(project / path, index, label)
    audit, train = [line for line in code_lines(three) if line.startswith(('python -m covid_jax.main', 'covid-jax'))]
    assert '3/3' in followed(audit, project)
    told = followed(train, project)
    assert 'train: 1 noncovid, 1 covid' in told and 'test: 1 covid' in told
    assert (project / 'runs' / 'three' / 'predictions.csv').read_text(encoding='utf-8').count('scans/carla,carla') == 1

    rng = np.random.default_rng(0)
    rows = ['path,label,patient']
    for n in range(10):
        np.savez(project / 'scans' / f'{n}.npz', hu=rng.integers(-1000, 400, (8, 16, 16), np.int16))
        rows.append(f'scans/{n}.npz,{"covid" if n % 2 else "normal"},patient{n}')
    (project / 'scans.csv').write_text('\n'.join(rows) + '\n')
    plain, mine, compare = [line for line in code_lines(thirty) if line.startswith(('python -m covid_jax.main', 'covid-jax'))]
    assert '5 folds' in followed(f'{plain} {TINY}', project)
    followed(f'{mine} {TINY} --config.views.depth=6 --config.cmc.projection=8 --config.eval.tta=0', project)
    told = followed(compare, project)
    assert re.search(r'auc +│ *-?\d', told), told
