"""torch's weights in our networks, under both libraries' names: what is loaded, what inflation keeps, what is told of a misfit.

Names and shapes are spelled out for tiny members of five families. timm's full-size files are those that models/parity_test.py
draws by name.
"""

from functools import partial

import jax
import numpy as np
import pytest
from conftest import small_config
from weight_files import write_safetensors

from covid_jax import UserError, experiment, start, warm
from covid_jax.models import network
from covid_jax.runtime import checkpoint
from covid_jax.weights import pretrained

# their name at timm, at torchvision, shape; the first convolution is of colours, the classifier of 5 classes
NORM = ('weight', 'bias', 'running_mean', 'running_var')
VGG = [
    ('features.0.weight', 'features.0.weight', (4, 3, 3, 3)), ('features.0.bias', 'features.0.bias', (4,)),
    ('features.3.weight', 'features.3.weight', (8, 4, 3, 3)), ('features.3.bias', 'features.3.bias', (8,)),
    ('pre_logits.fc1.weight', 'classifier.0.weight', (8, 8, 7, 7)), ('pre_logits.fc1.bias', 'classifier.0.bias', (8,)),
    ('pre_logits.fc2.weight', 'classifier.3.weight', (8, 8, 1, 1)), ('pre_logits.fc2.bias', 'classifier.3.bias', (8,)),
    ('head.fc.weight', 'classifier.6.weight', (5, 8)), ('head.fc.bias', 'classifier.6.bias', (5,)),
]


def norm(timm, torchvision, channels):
    return [(f'{timm}.{part}', f'{torchvision}.{part}', (channels,)) for part in NORM]


def dense_layer(block, layer, channels):
    at = f'features.denseblock{block}.denselayer{layer}'
    return [*norm(f'{at}.norm1', f'{at}.norm.1', channels), *norm(f'{at}.norm2', f'{at}.norm.2', 16),
            (f'{at}.conv1.weight', f'{at}.conv.1.weight', (16, channels, 1, 1)),
            (f'{at}.conv2.weight', f'{at}.conv.2.weight', (4, 16, 3, 3))]


def gate(timm, torchvision, wide):
    """Squeeze-and-excitation with an inner width of 2."""
    return [(f'{timm}.conv_reduce.weight', f'{torchvision}.fc1.weight', (2, wide, 1, 1)),
            (f'{timm}.conv_reduce.bias', f'{torchvision}.fc1.bias', (2,)),
            (f'{timm}.conv_expand.weight', f'{torchvision}.fc2.weight', (wide, 2, 1, 1)),
            (f'{timm}.conv_expand.bias', f'{torchvision}.fc2.bias', (wide,))]


def same(name, shape):
    return name, name, shape


DENSENET = [
    same('features.conv0.weight', (6, 3, 7, 7)), *norm('features.norm0', 'features.norm0', 6),
    *dense_layer(1, 1, 6), *dense_layer(1, 2, 10),
    *norm('features.transition1.norm', 'features.transition1.norm', 14),
    same('features.transition1.conv.weight', (7, 14, 1, 1)),
    *dense_layer(2, 1, 7), *dense_layer(2, 2, 11), *norm('features.norm5', 'features.norm5', 15),
    same('classifier.weight', (5, 15)), same('classifier.bias', (5,)),
]
EFFICIENTNET = [
    ('conv_stem.weight', 'features.0.0.weight', (8, 3, 3, 3)), *norm('bn1', 'features.0.1', 8),
    ('blocks.0.0.conv_dw.weight', 'features.1.0.block.0.0.weight', (8, 1, 3, 3)),
    *norm('blocks.0.0.bn1', 'features.1.0.block.0.1', 8), *gate('blocks.0.0.se', 'features.1.0.block.1', 8),
    ('blocks.0.0.conv_pw.weight', 'features.1.0.block.2.0.weight', (8, 8, 1, 1)),
    *norm('blocks.0.0.bn2', 'features.1.0.block.2.1', 8),
    ('blocks.1.0.conv_pw.weight', 'features.2.0.block.0.0.weight', (16, 8, 1, 1)),
    *norm('blocks.1.0.bn1', 'features.2.0.block.0.1', 16),
    ('blocks.1.0.conv_dw.weight', 'features.2.0.block.1.0.weight', (16, 1, 3, 3)),
    *norm('blocks.1.0.bn2', 'features.2.0.block.1.1', 16), *gate('blocks.1.0.se', 'features.2.0.block.2', 16),
    ('blocks.1.0.conv_pwl.weight', 'features.2.0.block.3.0.weight', (8, 16, 1, 1)),
    *norm('blocks.1.0.bn3', 'features.2.0.block.3.1', 8),
    ('conv_head.weight', 'features.8.0.weight', (16, 8, 1, 1)), *norm('bn2', 'features.8.1', 16),
    ('classifier.weight', 'classifier.1.weight', (5, 16)), ('classifier.bias', 'classifier.1.bias', (5,)),
]
RESNET = [
    same('conv1.weight', (4, 3, 7, 7)), *norm('bn1', 'bn1', 4),
    same('layer1.0.conv1.weight', (4, 4, 1, 1)), *norm('layer1.0.bn1', 'layer1.0.bn1', 4),
    same('layer1.0.conv2.weight', (4, 4, 3, 3)), *norm('layer1.0.bn2', 'layer1.0.bn2', 4),
    same('layer1.0.conv3.weight', (16, 4, 1, 1)), *norm('layer1.0.bn3', 'layer1.0.bn3', 16),
    same('layer1.0.downsample.0.weight', (16, 4, 1, 1)), *norm('layer1.0.downsample.1', 'layer1.0.downsample.1', 16),
    same('fc.weight', (5, 16)), same('fc.bias', (5,)),
]
RESNEST = [
    same('conv1.0.weight', (4, 3, 3, 3)), *norm('conv1.1', 'conv1.1', 4), same('conv1.3.weight', (4, 4, 3, 3)),
    *norm('conv1.4', 'conv1.4', 4), same('conv1.6.weight', (8, 4, 3, 3)), *norm('bn1', 'bn1', 8),
    same('layer1.0.conv1.weight', (4, 8, 1, 1)), *norm('layer1.0.bn1', 'layer1.0.bn1', 4),
    same('layer1.0.conv2.conv.weight', (8, 2, 3, 3)), *norm('layer1.0.conv2.bn0', 'layer1.0.conv2.bn0', 8),
    same('layer1.0.conv2.fc1.weight', (32, 4, 1, 1)), same('layer1.0.conv2.fc1.bias', (32,)),
    *norm('layer1.0.conv2.bn1', 'layer1.0.conv2.bn1', 32),
    same('layer1.0.conv2.fc2.weight', (8, 32, 1, 1)), same('layer1.0.conv2.fc2.bias', (8,)),
    same('layer1.0.conv3.weight', (16, 4, 1, 1)), *norm('layer1.0.bn3', 'layer1.0.bn3', 16),
    same('layer1.0.downsample.1.weight', (16, 8, 1, 1)), *norm('layer1.0.downsample.2', 'layer1.0.downsample.2', 16),
    same('fc.weight', (5, 16)), same('fc.bias', (5,)),
]
# tiny member: tensors, its first convolution and what that is called
FAMILIES = {'_VGGTiny': (VGG, 'conv0', 'features.0'), '_DenseNetTiny': (DENSENET, 'conv0', 'features.conv0'),
            '_EfficientNetTiny': (EFFICIENTNET, 'conv_stem', 'conv_stem'),
            '_ResNetTiny': (RESNET, 'conv1', 'conv1'), '_ResNeStTiny': (RESNEST, 'stem_conv0', 'conv1.0')}
TAPS = {'_DenseNetTiny': {}}  # in 2D alone; the rest: taps=1
IMAGE = (1, 16, 24, 3)


def drawn(listing, torchvision=False):
    """Random tensors by name: the same numbers under either. torchvision's VGG is dense from [c, h, w] flattened."""
    rng = np.random.default_rng(0)
    tensors = {}
    for *names, shape in listing:
        x = rng.normal(0, 0.3, shape).astype('f')
        if names[0].endswith('running_var'):
            x = 1 + np.abs(x)
        flat = torchvision and names[1] in ('classifier.0.weight', 'classifier.3.weight')
        tensors[names[torchvision]] = x.reshape(len(x), -1) if flat else x
    return tensors


def started(name, image=IMAGE, classes=5, **fields):
    net = network(name)(classes=classes, **(fields or TAPS.get(name, {'taps': 1})))
    return net, jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros(image, 'f'))


def leaf(variables, path):
    params = variables['params']
    for key in path.split('/'):
        params = params[key]
    return np.asarray(params)


@pytest.mark.parametrize('name', FAMILIES)
def test_both_libraries_names_of_a_file(tmp_path, name):
    listing = FAMILIES[name][0]
    _, shapes = started(name)
    loaded = []
    for torchvision in (False, True):
        path = write_safetensors(tmp_path / f'{torchvision}.safetensors', drawn(listing, torchvision))
        variables, report = pretrained.convert(shapes, pretrained.load(path, name), name)
        assert pretrained.summary(report) == f'{len(listing)} loaded'
        loaded.append(variables)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(loaded[0]), jax.tree.leaves(loaded[1]), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('torchvision', [False, True])
def test_grey_and_other_classes(name, torchvision):
    listing, first, their_first = FAMILIES[name]
    tensors = drawn(listing, torchvision)
    variables, report = pretrained.convert(started(name, (1, 16, 24, 1), classes=2)[1], tensors, name)
    afresh = '2 initialised afresh (classifier: 2 classes, file has 5)'
    assert pretrained.summary(report) == f'{len(listing) - 3} loaded; {afresh}; 1 summed RGB onto grey'
    kernel = drawn(listing)[f'{their_first}.weight'].sum(1).transpose(1, 2, 0)
    np.testing.assert_allclose(leaf(variables, f'{first}/kernel')[0, :, :, 0], kernel, rtol=1e-6)
    assert {ours for ours, theirs, _ in report if theirs == '-'} == {'classifier/Dense_0/kernel', 'classifier/Dense_0/bias'}


@pytest.mark.parametrize('name, inflate', [('_ResNetTiny', 'mean'), ('_ResNetTiny', 'centre'), ('_ResNeStTiny', 'centre')])
def test_inflation_keeps_the_answer(name, inflate, rng):
    """centre: every slice as it was alone, whatever the others are. mean: the same where the scan does not change in
    depth and nothing reaches its ends: two kernels see two slices either way, split attention sees all."""
    if inflate == 'mean':
        volume = np.repeat(rng.random((1, 1, 24, 24, 1), np.float32), 5, 1)
        inner = slice(2, 3)
    else:
        volume = rng.random((1, 3, 24, 24, 1), np.float32)
        inner = slice(None)
    maps = []
    for taps in (1, 3):
        net, shapes = started(name, volume.shape, taps=taps, depth_strides=(1,) * 6)
        variables, _ = pretrained.convert(shapes, drawn(FAMILIES[name][0]), name, inflate)
        maps.append(jax.jit(partial(net.apply, method='trunk'))(variables, volume)[:, inner])
    assert np.ptp(maps[0]) > 0.1  # a map of NaN would be equal to any other
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=1e-5 * np.abs(maps[0]).max())


@pytest.mark.parametrize('inflate', ['mean', 'centre'])
@pytest.mark.parametrize('name, fields, inflated', [
    ('_VGGTiny', {'taps': 3}, 2), ('_EfficientNetTiny', {'taps': 3}, 3), ('_EfficientNetTiny', {'taps': None}, 3)])
def test_a_2d_file_in_a_3d_network(name, fields, inflated, inflate):
    listing = FAMILIES[name][0]
    variables, report = pretrained.convert(started(name, (1, 8, 16, 24, 3), **fields)[1], drawn(listing), name, inflate)
    assert [action for *_, action in report].count(f'inflated 3 ({inflate})') == inflated
    ours, theirs = ('conv3', 'features.3') if name == '_VGGTiny' else ('blocks1_0/conv_dw', 'blocks.1.0.conv_dw')
    flat = drawn(listing)[f'{theirs}.weight'].transpose(2, 3, 1, 0)
    weights = [1 / 3] * 3 if inflate == 'mean' else [0, 1, 0]
    np.testing.assert_allclose(leaf(variables, f'{ours}/kernel'), [w * flat for w in weights], rtol=1e-6)


def test_the_dense_layer_of_a_vgg_in_3d_keeps_its_start():
    """Its map is 2x4x6, not 7x7: the rest is loaded, the second dense layer too."""
    for torchvision in (False, True):
        _, shapes = started('_VGGTiny', (1, 8, 16, 24, 3), taps=3)
        _, report = pretrained.convert(shapes, drawn(VGG, torchvision), '_VGGTiny')
        rows = {ours: (theirs, action) for ours, theirs, action in report}
        assert rows['fc1/kernel'] == ('-', 'initialised afresh (first dense layer: 2x4x6, file has 7x7)')
        assert pretrained.summary(report).startswith('7 loaded; 2 inflated 3 (mean); 1 initialised afresh')


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('torchvision', [False, True])
def test_what_is_missing_unused_or_of_another_shape_is_an_error(name, torchvision):
    listing = FAMILIES[name][0]
    shapes = started(name)[1]
    for at in (0, len(listing) // 2):
        wrong = drawn(listing, torchvision)
        theirs = list(wrong)[at]
        x = wrong.pop(theirs)
        with pytest.raises(UserError, match=rf'not of {name}: {theirs} is missing for [^;]*$'):
            pretrained.convert(shapes, wrong, name)
        with pytest.raises(UserError, match=rf'{theirs} \(.*\) does not fit for [^;]*$'):
            pretrained.convert(shapes, wrong | {theirs: np.concatenate([x, x])}, name)
    with pytest.raises(UserError, match=r'features.99.weight \(4,\) is unused$'):
        pretrained.convert(shapes, drawn(listing, torchvision) | {'features.99.weight': np.ones(4, 'f')}, name)


@pytest.mark.parametrize('shape', [(8, 9, 7, 7), (9, 8, 7, 7), (8, 391), (8, 400), (8,), ()])
def test_vggs_first_dense_layer_of_other_channels_is_an_error(shape):
    wrong = drawn(VGG) | {'pre_logits.fc1.weight': np.ones(shape, 'f')}
    with pytest.raises(UserError, match='pre_logits.fc1.weight .* does not fit'):
        pretrained.convert(started('_VGGTiny')[1], wrong, '_VGGTiny')


@pytest.mark.parametrize('name, places', [
    ('ResNet50GRU', ('timm/resnet50.tv_in1k', 'pytorch.org/models/resnet50-0676ba61.pth')),
    ('ResNeSt50', ('timm/resnest50d.in1k', 'zhanghang1989/ResNeSt')),
    ('VGG19', ('timm/vgg19.tv_in1k', 'pytorch.org/models/vgg19-dcbb9e9d.pth')),
    ('DenseNet169', ('timm/densenet169.tv_in1k', 'pytorch.org/models/densenet169-b2777c0a.pth')),
    ('EfficientNetB4', ('timm/efficientnet_b4.ra2_in1k', 'pytorch.org/models/efficientnet_b4_rwightman-23ab8bcd.pth')),
    ('ResNet14Small', ('no weights of ResNet14Small are published',)), ('CRNet', ('no weights of CRNet are published',))])
def test_a_missing_file_says_where_one_is_usually_found(tmp_path, name, places):
    with pytest.raises(UserError, match='there is no file .*absent.pth: set --config.model.pretrained') as e:
        pretrained.load(tmp_path / 'absent.pth', name)
    assert all(place in str(e.value) for place in places) and '\n' not in str(e.value)


def test_the_report_names_every_tensor_once_and_what_was_done():
    _, shapes = started('_ResNeStTiny', (1, 4, 16, 24, 1), classes=2, taps=3)
    _, report = pretrained.convert(shapes, drawn(RESNEST), '_ResNeStTiny')
    assert len({ours for ours, *_ in report}) == len(report) == len(jax.tree.leaves(shapes)) == 45
    rows = {ours: (theirs, action) for ours, theirs, action in report}
    assert rows['stem_conv0/kernel'] == ('conv1.0.weight', 'summed RGB onto grey, inflated 3 (mean)')
    assert rows['layer1_0/conv2/conv/kernel'] == ('layer1.0.conv2.conv.weight', 'inflated 3 (mean)')
    assert rows['layer1_0/downsample_bn/var'] == ('layer1.0.downsample.2.running_var', 'loaded')
    assert pretrained.summary(report) == (
        '39 loaded; 3 inflated 3 (mean); 2 initialised afresh (classifier: 2 classes, file has 5); '
        '1 summed RGB onto grey, inflated 3 (mean)')
    assert len(pretrained.table(report).splitlines()) == 45


def test_what_the_file_does_not_have_keeps_its_start():
    """The very arrays: what follows a per-slice network, a first convolution of another plane, a classifier."""
    net, shapes = started('_ResNetGRUTiny', (1, 4, 16, 24, 3))
    _, report = pretrained.convert(shapes, drawn(RESNET), '_ResNetGRUTiny')
    assert {ours.split('/')[0] for ours, _, action in report if 'afresh' in action} == {'slices', 'classifier'}
    _, shapes = started('_ResNeStTiny', taps=1, stem_plane=7)
    variables, report = pretrained.convert(shapes, drawn(RESNEST), '_ResNeStTiny')
    assert ('stem_conv0/kernel', '-', 'initialised afresh (first convolution: 7x7, file has 3x3)') in report
    assert variables['params']['stem_conv0']['kernel'] is shapes['params']['stem_conv0']['kernel']
    headless = {name: x for name, x in drawn(RESNEST).items() if not name.startswith('fc')}
    _, report = pretrained.convert(shapes, headless, '_ResNeStTiny')
    assert '2 initialised afresh (classifier: 5 classes, file has none)' in pretrained.summary(report)


@pytest.mark.parametrize(('name', 'value', 'why'), [
    ('bn1.num_batches_tracked', np.array(7), ''),  # the one tensor of torch that is no part of a network
    ('layer1.0.conv1.weight', np.ones((4, 5, 1, 1)),
     r'conv1.weight \(4, 5, 1, 1\) does not fit for layer1_0/conv1/kernel \(1, 1, 1, 4, 4\)'),
    ('layer1.0.conv2.weight', np.ones((4, 4, 5, 5)), r'\(4, 4, 5, 5\) does not fit'),
    ('conv1.weight', np.ones((4, 4, 7, 7)), r'\(4, 4, 7, 7\) does not fit'),
    ('layer1.0.conv2.weight', np.ones((4, 4, 2, 3, 3)), r'\(4, 4, 2, 3, 3\) does not fit'),
    ('bn1.weight', np.array([1, np.nan, 1, 1]), 'bn1.weight is not finite'),
    ('bn1.weight', np.ones(4, np.int8), 'bn1.weight is of int8')])
def test_a_misfit_is_named_with_both_shapes(name, value, why):
    tensors = drawn(RESNET) | {name: value}
    shapes = started('_ResNetTiny')[1]
    if not why:
        pretrained.convert(shapes, tensors, '_ResNetTiny')
        return
    with pytest.raises(UserError, match=why) as e:
        pretrained.convert(shapes, tensors, '_ResNetTiny')
    assert str(e.value).count(';') == 0 and '\n' not in str(e.value)


def test_weights_of_another_network_are_refused_in_one_line():
    with pytest.raises(UserError, match='; and [0-9]+ more$') as e:
        pretrained.convert(started('_DenseNetTiny')[1], drawn(RESNET), '_DenseNetTiny')
    assert len(str(e.value)) < 700 and '\n' not in str(e.value)
    with pytest.raises(UserError, match='--config.model.inflate=median must be mean or centre'):
        pretrained.convert(started('_ResNetTiny')[1], {}, '_ResNetTiny', 'median')


def test_a_run_starts_from_a_file(tmp_path, capsys):
    """Of a network without statistics. What is wrong with the file leaves the folder free; a run that goes on needs none."""
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.model.name = '_VGGTiny'
        c.prep.size = (1, 16, 24)
        c.model.pretrained = str(tmp_path / 'vgg.safetensors')
    with pytest.raises(UserError, match='there is no file .*vgg.safetensors'):
        start.begin(c, tmp_path / 'run')
    tensors = drawn(VGG)
    write_safetensors(tmp_path / 'vgg.safetensors', {name: x for name, x in tensors.items() if name != 'features.3.bias'})
    with pytest.raises(UserError, match='features.3.bias is missing'):
        experiment.run(c, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()
    write_safetensors(tmp_path / 'vgg.safetensors', tensors)
    run = start.begin(c, tmp_path / 'run')
    state, _ = warm.initial_state(run, 1.0, jax.random.key(0))
    np.testing.assert_array_equal(state.params['network']['conv3']['bias'], tensors['features.3.bias'])
    assert state.state == {'network': {}} and 'vgg.safetensors: 7 loaded; ' in ' '.join(capsys.readouterr().out.split())
    assert 'features.0.weight' in (tmp_path / 'run' / 'pretrained.txt').read_text()
    with checkpoint.manager(tmp_path / 'run' / 'checkpoints') as checkpoints:
        checkpoint.save(checkpoints, state)
    (tmp_path / 'vgg.safetensors').unlink()
    warm.initial_state(start.begin(c, tmp_path / 'run'), 1.0, jax.random.key(0))
