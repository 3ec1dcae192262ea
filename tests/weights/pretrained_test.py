"""torch's weights in our networks: what inflation keeps, and what is told of a misfit."""

from functools import partial
from hashlib import sha256

import jax
import numpy as np
import pytest
from conftest import small_config
from parity import rule
from weight_files import write_safetensors

from covid_jax import UserError, experiment
from covid_jax.models import network
from covid_jax.runtime import checkpoint
from covid_jax.weights import pretrained


def listing(kind, sizes, width=64, stem=64, expansion=4, classes=1000):
    """{name: shape} of torch's state dict."""
    shapes = {}

    def conv(name, features, features_in, k, bias=False):
        shapes[f'{name}.weight'] = features, features_in, k, k
        if bias:
            shapes[f'{name}.bias'] = (features,)

    def bn(name, features):
        shapes.update({f'{name}.{part}': (features,) for part in ('weight', 'bias', 'running_mean', 'running_var')})
        shapes[f'{name}.num_batches_tracked'] = ()

    deep = kind == 'resnest'
    if deep:
        for i, (features, features_in) in enumerate(((stem, 3), (stem, stem), (2 * stem, stem))):
            conv(f'conv1.{3 * i}', features, features_in, 3)
            bn('bn1' if i == 2 else f'conv1.{3 * i + 1}', features)
    else:
        conv('conv1', stem, 3, 7)
        bn('bn1', stem)
    before = 2 * stem if deep else stem
    for i, size in enumerate(sizes):
        w = width * 2**i
        for j in range(size):
            at = f'layer{i + 1}.{j}'
            conv(f'{at}.conv1', w, before, 1 if expansion == 4 else 3)
            bn(f'{at}.bn1', w)
            if deep:
                inner = max(w // 2, 32)
                conv(f'{at}.conv2.conv', 2 * w, w // 2, 3)
                bn(f'{at}.conv2.bn0', 2 * w)
                conv(f'{at}.conv2.fc1', inner, w, 1, bias=True)
                bn(f'{at}.conv2.bn1', inner)
                conv(f'{at}.conv2.fc2', 2 * w, inner, 1, bias=True)
            else:
                conv(f'{at}.conv2', w, w, 3)
                bn(f'{at}.bn2', w)
            if expansion == 4:
                conv(f'{at}.conv3', 4 * w, w, 1)
                bn(f'{at}.bn3', 4 * w)
            if j == 0 and (i > 0 or before != expansion * w):
                conv(f'{at}.downsample.{int(deep)}', expansion * w, before, 1)
                bn(f'{at}.downsample.{int(deep) + 1}', expansion * w)
            before = expansion * w
    shapes.update({'fc.weight': (classes, before), 'fc.bias': (classes,)})
    return shapes


def drawn(shapes):
    return {name: np.array(7) if name.endswith('tracked') else rule.draw(name, shape) for name, shape in shapes.items()}


RESNEST50 = partial(listing, 'resnest', (3, 4, 6, 3), stem=32)
RESNET50 = partial(listing, 'resnet', (3, 4, 6, 3))
RESNET18 = partial(listing, 'resnet', (2, 2, 2, 2), expansion=1)
TINY = {'_ResNetTiny': partial(listing, 'resnet', (1,), width=4, stem=4),
        '_ResNeStTiny': partial(listing, 'resnest', (1,), width=4, stem=4)}


def shapes_of(net, image=(1, 4, 32, 32, 1)):
    return jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros(image, np.float32))


@pytest.mark.parametrize(('shapes', 'digest'), [
    (RESNEST50, 'b7a96f24e816a0e3'), (RESNET50, 'eeb21a877a7592d7'), (RESNET18, '46bd7814ec81a02c')])
def test_the_names_and_shapes_of_this_file_are_those_of_timm(shapes, digest):
    """Of timm 1.0.31: `for k, v in net.state_dict().items(): print(k, tuple(v.shape))`, sorted, through sha256sum."""
    lines = ''.join(sorted(f'{name} {shape}\n' for name, shape in shapes().items()))
    assert sha256(lines.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize('name', TINY)
def test_grey_is_three_equal_colours(name, rng):
    grey = rng.random((2, 24, 24, 1), np.float32)
    maps = []
    for image in (grey, np.repeat(grey, 3, -1)):
        net = network(name)(classes=2, taps=1)
        variables, report = pretrained.convert(shapes_of(net, image.shape), drawn(TINY[name](classes=2)), name)
        maps.append(net.apply(variables, image)[1]['map'])
        assert ('summed RGB onto grey' in {action for *_, action in report}) == (image is grey)
    np.testing.assert_allclose(*maps, rtol=1e-4, atol=1e-4 * np.abs(maps[0]).max())


@pytest.mark.parametrize(('name', 'inflate'), [
    ('_ResNetTiny', 'mean'), ('_ResNetTiny', 'centre'), ('_ResNeStTiny', 'centre')])
def test_inflation_keeps_the_answer(name, inflate, rng):
    """centre: every slice as it was alone, whatever the others are. mean: the same where the scan does not change in
    depth and nothing reaches its ends: two kernels see two slices either way, split attention sees all."""
    if inflate == 'mean':
        volume = np.repeat(rng.random((1, 1, 24, 24, 1), np.float32), 5, 1)
    else:
        volume = rng.random((1, 3, 24, 24, 1), np.float32)
    tensors, maps = drawn(TINY[name]()), {}
    for taps in (1, 3):
        net = network(name)(classes=2, taps=taps, depth_strides=(1,) * 6)
        start = net.init(jax.random.key(0), volume)
        variables, report = pretrained.convert(start, tensors, name, inflate)
        maps[taps] = net.apply(variables, volume)[1]['map']
        classifier = start['params']['classifier']['Dense_0']
        assert variables['params']['classifier']['Dense_0'] == classifier  # the very arrays: 1000 classes there
    assert ('classifier/Dense_0/kernel', '-', 'initialised afresh (classifier: 2 classes, file has 1000)') in report
    inner = slice(2, 3) if inflate == 'mean' else slice(None)
    scale = np.abs(maps[1]).max()
    np.testing.assert_allclose(maps[3][:, inner], maps[1][:, inner], rtol=0, atol=1e-5 * scale)


def test_the_report_names_every_tensor_once():
    net = network('ResNeSt50')(classes=2)
    shapes = shapes_of(net)
    _, report = pretrained.convert(shapes, drawn(RESNEST50()), 'ResNeSt50')
    assert len({ours for ours, *_ in report}) == len(report) == len(jax.tree.leaves(shapes)) == 405
    rows = {ours: (theirs, action) for ours, theirs, action in report}
    assert rows['stem_conv0/kernel'] == ('conv1.0.weight', 'summed RGB onto grey, inflated 3 (mean)')
    assert rows['layer4_2/conv2/conv/kernel'] == ('layer4.2.conv2.conv.weight', 'inflated 3 (mean)')
    assert rows['layer2_0/downsample_bn/var'] == ('layer2.0.downsample.2.running_var', 'loaded')
    assert pretrained.summary(report) == (
        '384 loaded; 18 inflated 3 (mean); 2 initialised afresh (classifier: 2 classes, file has 1000); '
        '1 summed RGB onto grey, inflated 3 (mean)')
    assert len(pretrained.table(report).splitlines()) == 405


def test_what_a_2d_network_does_not_have_keeps_its_start():
    net = network('ResNet50GRU')(classes=2)
    _, report = pretrained.convert(shapes_of(net), drawn(RESNET50()), 'ResNet50GRU')
    assert all(('afresh' in action) == ours.startswith(('slices', 'classifier')) for ours, _, action in report)
    authors = network('ResNeSt50')(classes=2, taps=1, stem_plane=7)  # a 7x7 stem, never pretrained
    _, report = pretrained.convert(shapes_of(authors), drawn(RESNEST50()), 'ResNeSt50')
    assert ('stem_conv0/kernel', '-', 'initialised afresh (first convolution: 7x7, file has 3x3)') in report
    assert '402 loaded' in pretrained.summary(report)
    headless = {name: x for name, x in drawn(RESNEST50()).items() if not name.startswith('fc')}
    _, report = pretrained.convert(shapes_of(authors), headless, 'ResNeSt50')
    assert '2 initialised afresh (classifier: 2 classes, file has none)' in pretrained.summary(report)


def changed(name, value):
    tensors = drawn(TINY['_ResNetTiny']())
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return tensors


@pytest.mark.parametrize(('name', 'value', 'why'), [
    ('bn1.running_var', None, r'bn1.running_var is missing for bn1/var \(4,\)'),
    ('layer9.0.bn1.weight', np.ones(4), r'layer9.0.bn1.weight \(4,\) is unused'),
    ('layer1.0.conv1.weight', np.ones((4, 5, 1, 1)),
     r'conv1.weight \(4, 5, 1, 1\) does not fit for layer1_0/conv1/kernel \(1, 1, 1, 4, 4\)'),
    ('layer1.0.conv2.weight', np.ones((4, 4, 5, 5)), r'\(4, 4, 5, 5\) does not fit'),
    ('conv1.weight', np.ones((4, 4, 7, 7)), r'\(4, 4, 7, 7\) does not fit'),
    ('layer1.0.conv2.weight', np.ones((4, 4, 2, 3, 3)), r'\(4, 4, 2, 3, 3\) does not fit'),
    ('bn1.weight', np.array([1, np.nan, 1, 1]), 'bn1.weight is not finite'),
    ('bn1.weight', np.ones(4, np.int8), 'bn1.weight is of int8')])
def test_a_misfit_is_named_with_both_shapes(name, value, why):
    net = network('_ResNetTiny')(classes=2)
    with pytest.raises(UserError, match=why) as e:
        pretrained.convert(shapes_of(net), changed(name, value), '_ResNetTiny')
    assert str(e.value).count(';') == 0 and '\n' not in str(e.value)


def test_weights_of_another_network_are_refused_in_one_line():
    shapes = shapes_of(network('ResNet50')(classes=2))
    with pytest.raises(UserError, match='and 1.. more$') as e:
        pretrained.convert(shapes, drawn(RESNET18()), 'ResNet50')
    assert len(str(e.value)) < 700 and '\n' not in str(e.value)
    with pytest.raises(UserError, match='--config.model.inflate=median must be mean or centre'):
        pretrained.convert(shapes, {}, 'ResNet50', 'median')


def test_a_run_starts_from_a_file(tmp_path, capsys):
    """And one that fails leaves the folder free; one that goes on needs the file no more."""
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.train.update(epochs=1.0, lr=1e-9)
        c.eval.tta = 0
        c.model.pretrained = str(write_safetensors(tmp_path / 'wrong.safetensors', changed('bn1.weight', None)))
    with pytest.raises(UserError, match='missing'):
        experiment.run(c, tmp_path / 'run')
    tensors = drawn(TINY['_ResNeStTiny']())
    with c.unlocked():
        c.model.pretrained = str(write_safetensors(tmp_path / 'right.safetensors', tensors))
    experiment.run(c, tmp_path / 'run')
    assert 'right.safetensors: 39 loaded; ' in ' '.join(capsys.readouterr().out.split())
    text = (tmp_path / 'run' / 'pretrained.txt').read_text()
    assert 'stem_conv0/kernel' in text and 'layer1.0.downsample.2.running_mean' in text
    like = network('_ResNeStTiny')(classes=2).init(jax.random.key(5), np.zeros((1, 4, 16, 16, 1), np.float32))['params']
    params, kept = checkpoint.put(checkpoint.read(tmp_path / 'run')[1]['params'], {'network': like})
    assert not kept  # after two steps of 1e-9 the parameters are the file's
    np.testing.assert_allclose(params['network']['layer1_0']['conv3']['kernel'][0, 0, 0],
                               tensors['layer1.0.conv3.weight'][:, :, 0, 0].T, atol=1e-6)
    (tmp_path / 'right.safetensors').unlink()
    experiment.run(c, tmp_path / 'run')
