"""Weights read as data. Files are written here byte by byte, but two that torch 2.13.0 saved, kept as it wrote them."""

import base64
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.weights import pickled, tensors

# torch.save of {'epoch', 'lr', 'state_dict': {'module.a': ...}, 'p': a Parameter, 'names': nested lists}, and, in the
# format before torch 1.6, of {'a', 'b', 'c', 'n'} with the state dict's _metadata. zlib, base 85.
RECORDED = {
    'training.pth.tar': (
        'c-p0vOOMl56vuDu87E`tJb29mI<&Na14AZuCND~xk%ioa5uK(&iV!IBIG2gR6X!TL(}&b55}JYT+OE1nZKX<GbkBk>0UK6bAW;c*#Ycd'
        '9?U`U-nh7vhxpr*d|Ns1ab<XjMDUKkNN}<=rBszdB-)=e^c(Gv-E7QK^8u~c88XG;~dq7HUlnQX$vzw4G#hO5`TpxtbD^EhNnoJKJVi8'
        '<#I5q*%wmsLyHgUXGNB+WZU>`Rw(kC*Eq^mHh)ELmZ*XX)9V}WE7kCJ5SUE;VMx$fiDuH!c91h+b#U*FJVNGeJ#83gfsYYjsxl*oqbS>'
        '&tmrVL}X1YMH_xhB%H-R{CZQzEecOB0!bDQ>}grf4R%VEo4><Cq{YS%s-6%qkpc(pb$@bF3*h1NA|s7ENIb4w(sNayV2UAuwHqnW)-^*'
        '-*Vrrw4dyp$|A00IG15S_=e@1z?--zM0sB`Ox+_fe)(iVbrz-Ct|jjyw+OZ@}s~~gO90Yg1|{?nNEjRrwE*`g3=9Ev>`oUo7<Letz&|H'
        '8P4pyd?3le+0b->aZ<!{?2rk~7YSsmpxzBGv^$Wi!cveYEo#<*{B<ZOfy*~gynL7L9NoYY?q*iZWa{5DKfI{YEMjwIV1`bkbU#BgH#~p'
        'cBJ~aIcW6=>`bjQP2Mm>kyZ`*3+l++G!Qtjm@m09(JgZx-v({S2En?`oH;Wh_g(U`1`5OLXMI-DAFoi08fYoma_E_B*`X}!acW1Z`Aue'
        'VNo1Z?Nm1q=cSB7!)S*$B8W)1!P9sokuUWFc(>5tAHoxd$JqUoQW{X9b-%nTt~h!d%XuDmf(Z#j&0Z}wV)20$Z2VlBsGX@-7bFWY}Lx$'
        'Vpt+K-=kENE&7!-Y6Q&d^Kf-S@v&VX<%C{Qd9Y?>`aAz<#CeDgSaZi~i`|+Lht?KaaFm1sJ?~2m21K!0#;fA*nkJL(jY=jG8SLO9ic{m'
        '5b$aDZiu^w0t&S*0e%CpVgLBEmzRWrE-~3KD_wneuZ)<0cC>0_Bo>+Yw|U6{yWO6qYY>}ru;)dgL)iq5^W-L@x~#dT{;)<6Kw=jF`r)|'
        'KK%y7%cE609+Mv#L0s?Pwb3e!YyaZ4DzA-JPh5Lwl+$XwHk$o$?XSEx$7`dxI}wj7A--C8aWtjo<9i(u|9`Ttn3A-xQySvAzEbASw}tR'
        'rO7658DfstbEW8fCdZSXPk%RT&+LvvtLIw'),
    'legacy.pt': (
        'c-n1}%Z}496ozdlZJEFf!=2$e+*6P$k%o4<qC#jk<{CEMpeRkONl-|7VrL|fDs?jz@C+<w$*b`QNGv!>%D_mqEZaFg=llQIp0jUO`uqF'
        'tuk8;%-fZ>e?B!1b#~Bb?Y!X7IMXvKOPyKyas3gyTVuD!5oix!pmA=fPB*=h$5f%pZr>XQ+@>wb{W?<T)g+UePg@zVq!oaU2)6nLoFe^'
        'r$?Lmi|Wr><0%A_*XsG_XbMI;LuJx@Yy0qJ@`Z9%aj02b=J2;-h#>LgW`U&u+Bq>-;>rt-qycPub$TXZU6%nbG<m`#bbo92Oj*90wSi4'
        'Dvdxle}fPQUMt20MKR+O@}UTB5D?D-9>!a>5xm7O=(*P8VQ(jVn7RHJtKbz4kPLjTj|kGhT^29XF`W3T1G%fHRy{#Ip_RoQCrrT&PhYT'
        'x?KF$IoiZj|WGlFa1*(x`UD9I70_6qXI*Pt=jAXT;cQpt~T^*8m@bAqo!wY^BDaF9{&+}`#9Nk9mj=RNTx`>jpS~(A>Pq&*MocI4DO3H'
        'Eb%`|9Ylc+;6c4_3k(wI&fsBv3x8kEBTki46TIp7)$3aEA9R%kw(3j`*<++>^YP)BF4vvq+$R6G`BNOm*vC~iA&28XEC9UJ'),
}
MAGIC = pickle.dumps(0x1950a86a20f9469cfc6c, 2)
VERSION = pickle.dumps(1001, 2)
LITTLE = pickle.dumps({'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2}}, 2)


class Op(bytes):
    """Opcodes that stand for themselves."""


def op(x):
    """The opcodes of protocol 2 for x, as torch writes them."""
    if isinstance(x, Op):
        return x
    if isinstance(x, bool):
        return b'\x88' if x else b'\x89'
    if isinstance(x, int):
        return b'J' + struct.pack('<i', x) if abs(x) < 2**31 else b'\x8a\x08' + struct.pack('<q', x)
    if isinstance(x, str):
        return b'X' + struct.pack('<I', len(x.encode())) + x.encode()
    if isinstance(x, tuple):
        return b'(' + b''.join(map(op, x)) + b't'
    return b'}(' + b''.join(op(k) + op(v) for k, v in x.items()) + b'u'


def call(name, args):
    module, _, function = name.rpartition('.')
    return Op(f'c{module}\n{function}\n'.encode() + op(args) + b'R')


def tensor(key, size, shape, strides, offset=0, kind='Float'):
    storage = Op(op(('storage', Op(f'ctorch\n{kind}Storage\n'.encode()), key, 'cpu', size)) + b'Q')
    return call('torch._utils._rebuild_tensor_v2', (storage, offset, shape, strides, False,
                                                    call('collections.OrderedDict', ())))


def program(x):
    return b'\x80\x02' + op(x) + b'.'


def zipped(path, code, storages=None, **kwargs):
    with zipfile.ZipFile(path, 'w', **kwargs) as archive:
        archive.writestr('archive/data.pkl', code)
        archive.writestr('archive/byteorder', 'little')
        for key, content in (storages or {}).items():
            archive.writestr(f'archive/data/{key}', content)
    return path


def legacy(path, code, storages=None, machine=LITTLE):
    keys = pickle.dumps(list(storages or {}), 2)
    blocks = b''.join(struct.pack('<q', len(content) // 4) + content for content in (storages or {}).values())
    path.write_bytes(MAGIC + VERSION + machine + code + keys + blocks)
    return path


def safetensors(path, header, data=b''):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)
    return path


SIX = np.arange(6, dtype='<f4').tobytes()


@pytest.mark.parametrize('name', RECORDED)
def test_what_torch_saved(tmp_path, name):
    (tmp_path / name).write_bytes(zlib.decompress(base64.b85decode(RECORDED[name])))
    read = tensors.read(tmp_path / name)
    assert list(read) == ['a', 'b', 'c', 'n']  # neither the epoch nor what stands beside the state dict
    np.testing.assert_array_equal(read['a'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read['b'], [[0, 3], [1, 4], [2, 5]])  # a transposed view of the same storage
    assert read['c'].dtype.name == 'bfloat16' and read['c'].tolist() == [4, 5] and read['n'] == 7


@pytest.mark.parametrize('write', [zipped, legacy])
def test_views_share_a_storage(tmp_path, write):
    code = program({'whole': tensor('0', 6, (2, 3), (3, 1)), 'row': tensor('0', 6, (3,), (1,), 3),
                    'column': call('torch._utils._rebuild_parameter', (tensor('0', 6, (2,), (3,), 1), True, {})),
                    'none': tensor('0', 6, (0, 3), (3, 1)), 'scalar': tensor('0', 6, (), (), 5),
                    'spread': tensor('0', 6, (2, 2), (0, 1)), 'epoch': 3})
    read = tensors.read(write(tmp_path / 'w.pth', code, {'0': SIX}))
    assert {name: x.tolist() for name, x in read.items()} == {
        'whole': [[0, 1, 2], [3, 4, 5]], 'row': [3, 4, 5], 'column': [1, 4], 'none': [], 'scalar': 5,
        'spread': [[0, 1], [0, 1]]}


def test_a_dict_as_python_2_wrote_it(tmp_path):
    pairs = Op(b'](' + b''.join(b'](U\x01' + name + op(tensor('0', 6, (2,), (1,), offset)) + b'e'
                                for name, offset in ((b'a', 0), (b'b', 1))) + b'e')
    read = tensors.read(legacy(tmp_path / 'w.pth', program(call('collections.OrderedDict', (pairs,))), {'0': SIX}))
    assert {k: v.tolist() for k, v in read.items()} == {'a': [0, 1], 'b': [1, 2]}


def test_safetensors(tmp_path):
    header = {'__metadata__': {'format': 'pt'}, 'b': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [24, 28]},
              'module': {'dtype': 'F32', 'shape': [3, 2], 'data_offsets': [0, 24]}}
    read = tensors.read(safetensors(tmp_path / 'w.safetensors', header, SIX + b'\x80\x3f\x00\xc0'))  # 1.0 and -2.0
    assert read['module'].tolist() == [[0, 1], [2, 3], [4, 5]] and read['b'].astype(float).tolist() == [1, -2]


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def attacks(marker):
    """(what is named in the error, opcodes) of programs that would write the file `marker`."""
    shell = f'touch {marker}'
    python = f'open({str(marker)!r}, "w")'
    for protocol in (0, 1, 2, 3, 4, 5):
        yield r'(posix|nt)\.system', pickle.dumps(Attack(os.system, shell), protocol)
        yield r'builtins\.eval|__builtin__\.eval|opcode', pickle.dumps(Attack(eval, python), protocol)
    yield r'builtin(s|__)\.exec', pickle.dumps({'state_dict': [Attack(exec, python)]}, 2)
    yield r'torch\.hub\.load', program(call('torch.hub.load', ('someone/something', 'model')))
    yield r'torch\.load', program({'w': call('torch.load', (str(marker),))})
    yield r'torch\._utils\._rebuild_tensor_v2\.__globals__', program(
        call('torch._utils._rebuild_tensor_v2.__globals__', ()))
    yield r'covid_jax\.weights\.pickled\.os', program(call('covid_jax.weights.pickled.os', ()))
    yield r'collections\.OrderedDict\.__class__', b'\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.'
    yield 'opcode', b'(S' + repr(shell).encode() + b'\nios\nsystem\n.'
    yield 'opcode', b'\x80\x02ccollections\nOrderedDict\n)\x81.'
    yield 'opcode', b'\x80\x02\x82\x01.'
    yield r'calls torch\.FloatStorage', program(call('torch.FloatStorage', (5,)))


@pytest.mark.parametrize('number', range(22))
def test_a_program_is_refused_and_does_not_run(tmp_path, number):
    marker = tmp_path / 'ran'
    all_of_them = list(attacks(marker))
    assert len(all_of_them) == 22
    why, code = all_of_them[number]
    files = [zipped(tmp_path / 'a.pth', code), legacy(tmp_path / 'b.pt', code),
             legacy(tmp_path / 'c.bin', b'', None, code)]
    for path in files:
        with pytest.raises(UserError, match=f'({why}).* refused'):
            tensors.read(path)
    for path, content in ((tmp_path / 'd.safetensors', code), (tmp_path / 'e.safetensors', files[0].read_bytes()),
                          (tmp_path / 'f.pth', code)):
        path.write_bytes(content)
        with pytest.raises(UserError):
            tensors.read(path)
    with pytest.raises(UserError):
        tensors.read(safetensors(tmp_path / 'g.safetensors', code))
    assert not marker.exists()


def test_the_attack_is_one(tmp_path):
    pickle.loads(next(attacks(tmp_path / 'ran'))[1])
    assert (tmp_path / 'ran').exists()


def entry(shape=(6,), start=0, end=24, dtype='F32'):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [start, end]}


TWICE = f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode()


@pytest.mark.parametrize(('header', 'why'), [
    ({'a': entry(end=48)}, 'invalid shape, data type, or offset'),
    ({'a': entry((2,), 0, 8), 'b': entry((5,), 4, 24)}, 'invalid offset'),  # overlapping
    ({'a': entry((5,), 0, 20)}, 'not fully covered'),
    ({'a': entry((2**38, 0, 2**38), 0, 0), 'b': entry()}, 'more than'),
    ({'a': entry((*[1] * 8, 6))}, 'cannot be'),
    ({'a': entry((24,), dtype='F8_E4M3')}, 'F8_E4M3'),
    ({'a\nb': entry()}, 'no plain text'),
    ({'a\n' * 5000: entry(end=48)}, 'damaged'),  # the reader tells a name as it is
    (TWICE, 'twice'),  # and would take the last of two
    (b'[' * 100000, 'damaged'),
    (b'{}' + b' ' * 2**23, 'header is longer')])
def test_a_safetensors_header_is_checked(tmp_path, header, why):
    with pytest.raises(UserError, match=why) as e:
        tensors.read(safetensors(tmp_path / 'w.safetensors', header, SIX))
    assert '\n' not in str(e.value) and len(str(e.value)) < 600


def bombs():
    """(what is said, code, storages): small files that ask for much memory, or for the end of the process."""
    yield 'damaged', b'\x80\x02X\xff\xff\xff\xff.', {}
    yield 'no tensors', b'\x80\x02}r\xff\xff\xff\xff.', {}
    yield 'neither text nor numbers', b'\x80\x02})' + b'\x85' * 9000 + b'Ns.', {}
    yield 'too long', b'\x80\x02' + b'}' * 10**4, {}
    yield 'larger than the file|cut short', program({'w': tensor('0', 2**30, (1,), (1,))}), {'0': SIX}
    yield 'more than', program({'w': tensor('0', 6, (2**20, 2**20), (0, 0))}), {'0': SIX}
    yield 'more than', program({f'w{i}': tensor('0', 6, (2**25,), (0,)) for i in range(40)}), {'0': SIX}
    yield 'larger than its storage', program({'w': tensor('0', 6, (7,), (1,))}), {'0': SIX}
    yield 'larger than its storage', program({'w': tensor('0', 6, (2,), (1,), 5)}), {'0': SIX}
    yield 'strides', program({'w': tensor('0', 6, (2,), (-1,), 5)}), {'0': SIX}
    yield 'strides', program({'w': tensor('0', 6, (2,), (1,), -1)}), {'0': SIX}
    yield 'shape', program({'w': tensor('0', 6, (2,), (1, 1))}), {'0': SIX}
    yield 'shape', program({'w': tensor('0', 6, 6, 1)}), {'0': SIX}
    yield 'no plain text', program({3: tensor('0', 6, (1,), (1,))}), {'0': SIX}
    yield 'a storage that is not read', program({'w': tensor('0', -6, (1,), (1,))}), {'0': SIX}


@pytest.mark.parametrize('number', range(15))
def test_sizes_are_checked_before_memory_is_taken(tmp_path, number, monkeypatch):
    monkeypatch.setattr(pickled, 'OPCODES', 10**4)  # a hundredth: counting memory is slow
    all_of_them = list(bombs())
    assert len(all_of_them) == 15
    why, code, storages = all_of_them[number]
    for path in (zipped(tmp_path / 'w.pth', code, storages), legacy(tmp_path / 'w.pt', code, storages)):
        tracemalloc.start()
        with pytest.raises(UserError, match=why) as e:
            tensors.read(path)
        assert tracemalloc.get_traced_memory()[1] < 3e8 and '\n' not in str(e.value)
        tracemalloc.stop()


def test_zip_files_are_checked(tmp_path):
    good = program({'w': tensor('0', 6, (6,), (1,))})
    for why, path in (
            ('compressed', zipped(tmp_path / 'a.pth', good, {'0': SIX}, compression=zipfile.ZIP_DEFLATED)),
            ('another size', zipped(tmp_path / 'b.pth', good, {'0': SIX[:-1]})),
            ('damaged', zipped(tmp_path / 'c.pth', good)),
            ('not one that torch saved', zipped(tmp_path / 'd.pth', good, {'../data.pkl': good})),
            ('table of contents', zipped(tmp_path / 'e.pth', good, {f'{"long" * 16000}{i}': b'' for i in range(140)}))):
        if path.name == 'd.pth':
            with zipfile.ZipFile(path, 'a') as archive:
                archive.writestr('other/data.pkl', good)
        with pytest.raises(UserError, match=why):
            tensors.read(path)
    big = tmp_path / 'big.pth'
    big.write_bytes(zipped(tmp_path / 'f.pth', good, {'0': SIX}).read_bytes().replace(b'little', b'bigbig'))
    with pytest.raises(UserError, match='big-endian|damaged'):
        tensors.read(big)
    code = LITTLE.replace(b'\x88', b'\x89')
    with pytest.raises(UserError, match='on a machine'):
        tensors.read(legacy(tmp_path / 'g.pth', good, {'0': SIX}, code))


@pytest.mark.parametrize(('name', 'content', 'why'), [
    ('absent.pth', None, 'there is no file'), ('w.onnx', b'', 'is not read'), ('w.pth', b'', 'is no file of weights'),
    ('w.safetensors', b'', 'damaged'), ('w.pth', b'PK\x03\x04', 'damaged'), ('w.pt', MAGIC, 'damaged'),
    ('w.pth', pickle.dumps({'a': 1}), 'is no file of weights'), ('w.pt', MAGIC + VERSION[:-2], 'damaged')])
def test_a_wrong_file_is_one_line(tmp_path, name, content, why):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as e:
        tensors.read(tmp_path / name)
    assert '\n' not in str(e.value) and name in str(e.value)


def mutated(rng, content):
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content)))
        kind = rng.integers(5)
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at:at + 4] = rng.bytes(4)
        elif kind == 2:
            content[at:at + int(rng.integers(1, 9))] = b''
        elif kind == 3:
            content[at:at] = bytes(content[int(rng.integers(len(content))):][:int(rng.integers(1, 40))])
        else:
            content[at:at + 8] = struct.pack('<Q', 2**int(rng.integers(64)) - int(rng.integers(2)))
        content = content or bytearray(1)
    return bytes(content)


def test_mutated_files_end_in_arrays_or_one_line(tmp_path, rng):
    """600 files: whole ones mutated, and zip files whose program was mutated before its checksum was taken."""
    recorded = {name: zlib.decompress(base64.b85decode(text)) for name, text in RECORDED.items()}
    with zipfile.ZipFile(io.BytesIO(recorded['training.pth.tar'])) as archive:
        code = archive.read(next(name for name in archive.namelist() if name.endswith('data.pkl')))
    header = {'a': entry((2, 3)), 'b': entry((3,), 24, 36)}
    whole = {**recorded, 'w.safetensors': safetensors(tmp_path / 'w.safetensors', header, SIX + SIX[:12]).read_bytes()}
    read = refused = 0
    tracemalloc.start()
    for _ in range(150):
        files = [(tmp_path / name, mutated(rng, content)) for name, content in whole.items()]
        files.append((zipped(tmp_path / 'z.pth', mutated(rng, code), {str(k): SIX for k in range(4)}), None))
        for path, content in files:
            if content is not None:
                path.write_bytes(content)
            try:
                result = tensors.read(path)
                assert all(type(x) is np.ndarray and x.nbytes < 2**20 for x in result.values())
                read += 1
            except UserError as e:
                assert '\n' not in str(e) and len(str(e)) < 600, e
                refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read + refused == 600 and read > 15 and refused > 150 and peak < 5e7
