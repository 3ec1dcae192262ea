"""What an installation without extras brings: no torch, no TensorFlow, nothing that talks to a cloud; and each extra has a test."""

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNWANTED = re.compile(
    r'torch.*|triton.*|nvidia-.*|(tf-)?tensorflow(-(cpu|gpu|intel|macos|hub|text|io.*))?|tf-nightly|tf-keras|keras|'
    r'google-cloud-.*|google-api-.*|google-auth|gcsfs|boto3|botocore|aiobotocore|s3fs|awscli|azure-.*|adlfs|huggingface-hub|'
    r'wandb|mlflow.*|trackio|onnx.*|jax2onnx')


@pytest.fixture(scope='module')
def project(root):
    return tomllib.loads((root / 'pyproject.toml').read_text())['project']


def reached(requirements, of=importlib.metadata.requires):
    """{package: who asks for it} of requirements and of what these ask for in turn, on this machine."""
    found = {}
    todo = [(Requirement(line), '', 'covid-jax') for line in requirements]
    seen = set()
    while todo:
        wanted, extra, by = todo.pop()
        if wanted.marker and not wanted.marker.evaluate({'extra': extra}):
            continue
        name = canonicalize_name(wanted.name)
        found.setdefault(name, by)
        for part in {'', *wanted.extras}:
            if (name, part) not in seen:
                seen.add((name, part))
                todo += [(Requirement(line), part, name) for line in of(name) or []]
    return found


def unwanted(requirements, **how):
    return {name: by for name, by in reached(requirements, **how).items() if UNWANTED.fullmatch(name)}


def test_the_base_installation_pulls_no_torch_no_tensorflow_and_no_cloud(project):
    """As it is installed here, through all that asks for something in turn."""
    everything = reached(project['dependencies'])
    assert {'jax', 'jaxlib', 'numpy', 'tensorflow-datasets', 'flatbuffers'} <= {*everything} and len(everything) > 50
    assert not unwanted(project['dependencies'])


def test_the_walk_follows_what_is_asked_for_and_nothing_else():
    """Through a package between, and an extra that it names; not for another platform, or by an extra that nobody names."""
    tree = {'a': ['b[cloud]>=1', 'torch; sys_platform == "plan9"', 'boto3; extra == "aws"'],
            'b': ['google-cloud-storage; extra == "cloud"', 'tensorflow-datasets'],
            'tensorflow-datasets': ['tensorflow-metadata'], 'c': ['TensorFlow_CPU', 'c[x]', 'azure.core; extra == "x"']}

    def names(*requirements):
        return {*unwanted(requirements, of=tree.get)}

    assert names('a') == {'google-cloud-storage'} and names('b') == set()
    assert names('c') == {'tensorflow-cpu', 'azure-core'}
    assert names('a[aws]') == {'google-cloud-storage', 'boto3'}


def test_each_extra_that_is_no_platform_has_a_test(project, root):
    """Which says, where it is skipped, that it is of the extra."""
    texts = '\n'.join(path.read_text() for path in (root / 'tests').rglob('*_test.py'))
    extras = {*project['optional-dependencies']} - {'cuda', 'tpu', 'test', 'parity'}  # the marker of that name tests the last
    assert {'onnx', 'wandb', 'mlflow', 'trackio'} <= extras
    assert not [extra for extra in extras if f'the extra [{extra}]' not in texts and extra not in ('trackio', 'wandb', 'mlflow')]
    assert "f'{name} is of the extra [{name}]'" in texts
