"""Images of every mode end as the same grey, and the bytes decide what a file is."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from scan_files import real, refused, slices

from covid_jax.scans import scan as limits
from covid_jax.scans.decode import decode


@pytest.fixture
def noise(rng):
    """[6, 8] bytes, some of them 0 and 255."""
    return np.concatenate([np.uint8([[0, 255]] * 4).reshape(1, 8), rng.integers(0, 256, (5, 8), np.uint8)])


def png_header(path, side):
    """A PNG that claims a size it does not have, with the checksum that goes with the claim."""
    Image.new('L', (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack('>II', side, side)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def grey16(path, values, order='<', photometric=1):
    """A TIFF of 16 bits, written byte by byte: baseline tags, one strip."""
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
            (277, 3, 1), (278, 3, height), (279, 4, values.size * 2)]
    data = values.astype(order + 'u2').tobytes()
    entry = {3: 'HHIHxx', 4: 'HHII'}
    table = b''.join(struct.pack(order + entry[kind], tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack(order + '2sHI', b'II' if order == '<' else b'MM', 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack(order + 'H', len(tags)) + table + bytes(4))
    return path


@pytest.mark.parametrize('mode', ['L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_every_mode_gives_the_same_grey(tmp_path, mode):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    image = Image.fromarray(grey)
    if mode == 'I;16':
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == 'P':
        image = image.point(lambda v: 255 - v)
        image.putpalette([255 - i for i in range(256) for _ in 'rgb'])
    else:
        image = image.convert(mode)
    if mode in ('LA', 'RGBA'):
        image.putalpha(Image.new('L', image.size, 3))
    assert image.mode == mode
    image.save(tmp_path / 'a.png', **({'transparency': b'\x00\x80'} if mode == 'P' else {}))
    scan = decode(tmp_path / 'a.png')
    np.testing.assert_array_equal(scan.voxels, grey[None])
    assert scan.voxels.dtype == (np.float32 if mode == 'I;16' else np.uint8)
    assert not scan.hounsfield and scan.spacing is None


@pytest.mark.parametrize('mode, colour, grey', [('RGB', (255, 0, 0), 76), ('1', 1, 255)])  # 0.299 * 255 = 76.2
def test_colour_is_its_luma_and_a_bit_is_black_or_white(tmp_path, mode, colour, grey):
    Image.new(mode, (2, 2), colour).save(tmp_path / 'a.png')
    assert (decode(tmp_path / 'a.png').voxels == grey).all()


@pytest.mark.parametrize('inside', ['PNG', 'JPEG', 'TIFF', 'BMP', 'GIF'])
def test_bytes_decide_and_not_the_name(tmp_path, inside):
    Image.new('L', (4, 3), 90).save(tmp_path / 'a.jpg', inside)
    assert decode(tmp_path / 'a.jpg').voxels.shape == (1, 3, 4)
    np.testing.assert_allclose(decode(tmp_path / 'a.jpg').voxels, 90, atol=1)


@pytest.mark.parametrize('side', [9000, 12000, 40000])
def test_side_that_a_header_claims_is_judged_first(tmp_path, side):
    refused(png_header(tmp_path / 'a.png', side), 'pixels')


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'P'])
@pytest.mark.parametrize('compression', [None, 'tiff_lzw', 'tiff_adobe_deflate'])
def test_tiff_gives_the_grey_that_was_written(tmp_path, noise, mode, compression):
    image = Image.fromarray(noise)
    if mode == 'P':
        image = Image.fromarray(255 - noise)
        image.putpalette([255 - i for i in range(256) for _ in 'rgb'])
    image = image.convert(mode)
    if mode == 'RGBA':
        image.putalpha(Image.new('L', image.size, 3))
    image.save(tmp_path / 'a.tif', compression=compression)
    scan = decode(tmp_path / 'a.tif')
    np.testing.assert_array_equal(scan.voxels, noise[None])
    assert scan.voxels.dtype == np.uint8 and not scan.hounsfield and scan.spacing is None


@pytest.mark.parametrize('order', '<>')
def test_16_bits_of_a_tiff_are_65535_steps_of_grey(tmp_path, order):
    values = np.array([[0, 257, 5140], [32896, 65278, 65535]])
    scan = decode(grey16(tmp_path / 'a.tiff', values, order))
    np.testing.assert_allclose(scan.voxels, [[[0, 1, 20], [128, 254, 255]]], rtol=1e-6)
    assert scan.voxels.dtype == np.float32 and not scan.hounsfield


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('most', [1, 4095, 5000, 8191, 16383])
def test_12_to_14_bits_of_16_are_a_scanners_values_and_not_grey(tmp_path, order, most):
    refused(grey16(tmp_path / 'a.tif', np.array([[0, 1, most]]), order), f'from 0 to {most}', "'hu'", 'rescale')


@pytest.mark.parametrize('order', '<>')
def test_16_bits_that_are_used_or_all_black_are_grey(tmp_path, order):
    scan = decode(grey16(tmp_path / 'b.tif', np.array([[0, 16384]]), order))
    np.testing.assert_allclose(scan.voxels, [[[0, 16384 / 257]]])
    assert decode(grey16(tmp_path / 'c.tif', np.array([[0, 0, 0]]), order)).voxels.max() == 0


def test_8_bits_among_16_are_no_scan(tmp_path):
    for i, top in enumerate((4095, 255, 4095)):
        kind = np.uint8 if top == 255 else np.uint16
        Image.fromarray(np.array([[0, top]], kind)).save(tmp_path / f'{i}.png')
    refused(tmp_path, '1.png', 'has 8 bits', '16')
    pages = [Image.new('L', (8, 6), 200)]
    Image.new('I;16', (8, 6), 60000).save(tmp_path / 'a.tif', save_all=True, append_images=pages)
    refused(tmp_path / 'a.tif', 'page 1', '8 bits')


@pytest.mark.parametrize('compression', [None, 'tiff_lzw'])
def test_white_may_be_0_in_8_and_in_16_bits(tmp_path, noise, compression):
    inverted = (255 - noise.astype(np.uint16)) * 257
    if compression:
        Image.fromarray(inverted).save(tmp_path / 'b.tif', compression=compression, tiffinfo={262: 0})
    else:
        grey16(tmp_path / 'b.tif', inverted, photometric=0)
    Image.fromarray(noise).save(tmp_path / 'a.tif', compression=compression, tiffinfo={262: 0})  # Pillow inverts
    for name in ('a.tif', 'b.tif'):
        with Image.open(tmp_path / name) as image:
            assert image.tag_v2[262] == 0
        np.testing.assert_array_equal(decode(tmp_path / name).voxels[0], noise)


UPRIGHT = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
           6: lambda a: np.rot90(a, -1), 7: lambda a: a.T[::-1, ::-1], 8: np.rot90}  # what EXIF 2.32 says of tag 274


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize('name, options', [
    ('a.png', {}), ('a.jpg', {'quality': 100}), ('a.tif', {}), ('a.tif', {'compression': 'tiff_lzw'})])
def test_every_format_is_turned_as_its_tag_says(tmp_path, orientation, name, options):
    grey = (np.add.outer(np.arange(24) * 3, np.arange(32) * 5)).astype(np.uint8)
    image, exif = Image.fromarray(grey), Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / name, exif=exif, **options)
    scan = decode(tmp_path / name)
    np.testing.assert_allclose(scan.voxels[0], UPRIGHT[orientation](grey), atol=2)
    if name.endswith('.jpg'):
        return
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name, exif=exif, **options)
    np.testing.assert_array_equal(decode(tmp_path / name).voxels[0], UPRIGHT[orientation](grey))


def test_slices_are_of_one_size_once_they_are_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new('L', (8, 6), 1).save(tmp_path / '1.png')
    Image.new('L', (6, 8), 2).save(tmp_path / '2.png', exif=exif)
    Image.new('L', (6, 8), 3).save(tmp_path / '3.tif', exif=exif)
    assert decode(tmp_path).voxels[:, 0, 0].tolist() == [1, 2, 3] and decode(tmp_path).voxels.shape == (3, 6, 8)
    Image.new('L', (8, 6), 2).save(tmp_path / '2.png', exif=exif)
    refused(tmp_path, '2.png', '6 x 8', '8 x 6')


def test_broken_exif_turns_nothing(tmp_path):
    Image.new('L', (8, 6), 9).save(tmp_path / 'a.jpg', exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    assert decode(tmp_path / 'a.jpg').voxels.shape == (1, 6, 8)


@pytest.mark.parametrize('compression', [None, 'tiff_lzw'])
def test_pages_of_a_tiff_are_slices(tmp_path, compression):
    first, *pages = [Image.new('L', (8, 6), i) for i in (5, 3, 9)]
    first.save(tmp_path / 'a.tif', save_all=True, append_images=pages, compression=compression)
    scan = decode(tmp_path / 'a.tif')
    assert scan.voxels.shape == (3, 6, 8) and scan.voxels[:, 0, 0].tolist() == [5, 3, 9]


@pytest.mark.parametrize('second, words', [
    (Image.new('L', (5, 6)), ['5 x 6', '8 x 6']),
    (Image.new('F', (8, 6)), ['floating-point']),
    (Image.new('I;16', (8, 6), 60000), ['16 bits']),
])
def test_pages_of_a_tiff_are_alike(tmp_path, second, words):
    Image.new('L', (8, 6)).save(tmp_path / 'a.tif', save_all=True, append_images=[second])
    refused(tmp_path / 'a.tif', 'page 1', *words)


@pytest.mark.parametrize('options', [{'volumetric': True}, {'volumetric': True, 'tile': (2, 16, 16)}, {'truncate': True}])
def test_slices_behind_the_one_page_of_a_tiff_are_not_passed_over(tmp_path, options):
    stack = np.repeat(np.arange(6, dtype=np.uint8) * 20, 256).reshape(6, 16, 16)
    tifffile.imwrite(tmp_path / 'a.tif', stack, photometric='minisblack', **options)
    refused(tmp_path / 'a.tif', '6 slices on 1 page', 'page of its own')
    tifffile.imwrite(tmp_path / 'b.tif', stack, photometric='minisblack')
    np.testing.assert_array_equal(decode(tmp_path / 'b.tif').voxels, stack)


def test_a_stack_of_imagej_with_one_page_is_refused_and_with_six_is_read(tmp_path):
    """As ImageJ writes it: the description counts the slices, and the planes lie one behind the other."""
    planes = b''.join(bytes([20 * k + 5]) * 256 for k in range(6))
    said = b'ImageJ=1.53t\nimages=6\nslices=6\nloop=false\n\0'
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (270, 2, len(said), 134),
            (273, 4, 1, 134 + len(said)), (277, 3, 1, 1), (278, 3, 1, 16), (279, 4, 1, 256)]
    table = b''.join(struct.pack('<HHII', *tag) for tag in tags)
    (tmp_path / 'a.tif').write_bytes(b'II*\0' + struct.pack('<IH', 8, len(tags)) + table + bytes(4) + said + planes)
    refused(tmp_path / 'a.tif', '6 slices on 1 page')
    first, *more = [Image.new('L', (16, 16), 20 * k + 5) for k in range(6)]
    first.save(tmp_path / 'b.tif', save_all=True, append_images=more, tiffinfo={270: said.decode('ascii').strip('\0')})
    assert decode(tmp_path / 'b.tif').voxels[:, 3, 3].tolist() == [5, 25, 45, 65, 85, 105]


SAID = 'ImageJ=1.53t\nimages=30\nslices=30\nloop=false\n'


@pytest.mark.parametrize('options', [{}, {'compression': 'tiff_lzw'}, {'compression': 'tiff_adobe_deflate'}])
@pytest.mark.parametrize('side', [16, 200])
def test_a_page_that_was_cut_out_of_a_stack_is_one_slice_whatever_it_still_says(tmp_path, side, options):
    plane = np.random.default_rng(0).integers(0, 255, (side, side)).astype(np.uint8)
    Image.fromarray(plane).save(tmp_path / '2.tif', tiffinfo={270: SAID}, **options)
    np.testing.assert_array_equal(decode(tmp_path / '2.tif').voxels, plane[None])
    tifffile.imwrite(tmp_path / '1.tif', plane, photometric='minisblack', metadata=None, description=f'{{"shape": [30, {side}, {side}]}}')
    Image.fromarray(plane).save(tmp_path / '3.tif')
    np.testing.assert_array_equal(decode(tmp_path).voxels, [plane] * 3)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
@pytest.mark.parametrize('tiled', [False, True])
@pytest.mark.parametrize('order, big', [('<', False), ('>', False), ('<', True)])
def test_a_true_stack_of_imagej_is_not_cut_to_its_first_slice(tmp_path, kind, tiled, order, big):
    """Nor is one of which the end is missing, nor one whose table comes after its planes."""
    stack = np.random.default_rng(0).integers(0, 60000, (3, 64, 64)).astype(kind)
    options = {'tile': (32, 32)} if tiled else {}
    tifffile.imwrite(tmp_path / 'a.tif', stack[0], photometric='minisblack', metadata=None, description=SAID, byteorder=order, bigtiff=big, **options)
    data = (tmp_path / 'a.tif').read_bytes()
    rest = stack[1:].astype(stack.dtype.newbyteorder(order)).tobytes()
    for name, planes in (('whole', rest), ('cut', rest[:len(rest) // 3])):
        (tmp_path / f'{name}.tif').write_bytes(data + planes)
        refused(tmp_path / f'{name}.tif', '30 slices on 1 page')
    place, size = (8, 8) if big else (4, 4)
    at = int.from_bytes(data[place:place + size], 'little' if order == '<' else 'big')
    moved = data + rest + data[at:at + 400]
    (tmp_path / 'last.tif').write_bytes(moved[:place] + (len(data) + len(rest)).to_bytes(size, 'little' if order == '<' else 'big')
                                        + moved[place + size:])
    refused(tmp_path / 'last.tif', '30 slices on 1 page')


@pytest.mark.parametrize('compression', ['tiff_lzw', 'tiff_adobe_deflate'])
def test_a_page_of_many_strips_that_was_cut_out_of_a_stack_is_one_slice(tmp_path, compression):
    """The table of its strips stands behind them, and is longer than what any other page says of itself."""
    plane = np.random.default_rng(0).integers(0, 65535, (1200, 1200)).astype(np.uint16)
    image = Image.fromarray(plane)
    image.save(tmp_path / 'a.tif', tiffinfo={270: SAID, 278: 4}, compression=compression)
    with Image.open(tmp_path / 'a.tif') as saved:
        assert (tmp_path / 'a.tif').stat().st_size - saved.tag_v2[273][-1] - saved.tag_v2[279][-1] > 1024
    assert decode(tmp_path / 'a.tif').voxels.shape == (1, 1200, 1200)


def test_pages_that_are_channels_or_times_are_no_slices(tmp_path, rng):
    """Of ImageJ, of OME, and of tifffile's own; one channel of one time is read, in colours, too."""
    stack = rng.integers(0, 255, (2, 3, 16, 16)).astype(np.uint8)
    tifffile.imwrite(tmp_path / 'a.tif', stack, imagej=True, metadata={'axes': 'ZCYX'})
    refused(tmp_path / 'a.tif', 'channels=3', 'one channel')
    tifffile.imwrite(tmp_path / 'b.tif', stack, imagej=True, metadata={'axes': 'TZYX'})
    refused(tmp_path / 'b.tif', 'frames=2', 'one channel')
    tifffile.imwrite(tmp_path / 'c.ome.tif', stack, photometric='minisblack', metadata={'axes': 'ZCYX'})
    refused(tmp_path / 'c.ome.tif', 'C=3', 'one channel')
    tifffile.imwrite(tmp_path / 'd.tif', stack, photometric='minisblack')
    refused(tmp_path / 'd.tif', 'shape 2, 3, 16, 16', 'one channel')
    tifffile.imwrite(tmp_path / 'e.tif', stack[:, :1], imagej=True, metadata={'axes': 'ZCYX'})
    np.testing.assert_array_equal(decode(tmp_path / 'e.tif').voxels, stack[:, 0])
    tifffile.imwrite(tmp_path / 'f.ome.tif', np.repeat(stack[0, 0, ..., None], 3, -1), photometric='rgb')
    np.testing.assert_array_equal(decode(tmp_path / 'f.ome.tif').voxels, stack[:1, 0])
    tifffile.imwrite(tmp_path / 'g.tif', np.repeat(stack[0, ..., None], 3, -1), photometric='rgb')
    np.testing.assert_array_equal(decode(tmp_path / 'g.tif').voxels, stack[0])


def test_a_big_tiff_of_the_other_order_is_refused_in_one_line(tmp_path, noise):
    tifffile.imwrite(tmp_path / 'a.tif', noise, photometric='minisblack', bigtiff=True, byteorder='>')
    refused(tmp_path / 'a.tif', 'a BigTIFF', 'big-endian', 'save it as a TIFF')
    (tmp_path / 'b.png').write_bytes(b'no picture')
    refused(tmp_path / 'b.png', 'broken, or none of PNG')


def test_a_thumbnail_and_a_mask_among_the_pages_are_no_slices(tmp_path, noise):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(noise, photometric='minisblack')
        file.write(noise, photometric='minisblack', subfiletype=1)
    refused(tmp_path / 'a.tif', 'page 1 is a thumbnail or a mask')


def test_several_pages_are_no_slice_of_a_folder(tmp_path):
    folder = slices(tmp_path / 'scan', 2)
    Image.new('L', (8, 6)).save(folder / 'ct 3.tif', save_all=True, append_images=[Image.new('L', (8, 6))])
    refused(folder, 'ct 3.tif', '2 pages')


@pytest.mark.parametrize('order', '<>')
def test_a_stack_of_fractions_is_refused_for_them(tmp_path, order):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((3, 16, 16), np.float32), imagej=order == '>', photometric='minisblack')
    refused(tmp_path / 'a.tif', 'floating-point')


@pytest.mark.parametrize('values, words', [
    (np.float32([[0, .5], [1, 2]]), ['floating-point', '.npz']),
    (np.int32([[-1000, 40]]), ['-1000 to 40', "'hu'"]),
    (np.int32([[0, 70000]]), ['0 to 70000']),
])
def test_values_of_a_tiff_that_are_no_grey_are_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / 'a.tif')
    refused(tmp_path / 'a.tif', *words)


def test_more_slices_or_voxels_than_the_limits_are_refused(tmp_path, monkeypatch):
    folder = slices(tmp_path / 'scan', 4)
    monkeypatch.setattr(limits, 'VOXELS', 4 * 6 * 8 - 1)
    refused(folder, '191 voxels')
    monkeypatch.setattr(limits, 'FILES', 3)
    refused(folder, '4 slices')


def test_png_of_covid_ct_that_hold_jpeg_and_mix_modes_decode():
    files = sorted(real('COVID-CT/Images-processed/CT_COVID').glob('*.png'))
    jpegs = [path for path in files if path.read_bytes()[:2] == b'\xff\xd8']
    modes = set()
    for path in files:
        with Image.open(path) as image:
            modes.add(image.mode)
        scan = decode(path)
        assert scan.voxels.shape[0] == 1 and scan.voxels.dtype == np.uint8 and not scan.hounsfield
        assert 100 < scan.voxels.max() <= 255
    assert len(jpegs) == 32  # of the 251 that are here
    assert {'L', 'RGB', 'RGBA'} <= modes
    assert sum('%' in path.name for path in files) > 100


def test_exported_slices_come_back_in_order(tmp_path):
    hu = decode(real('COVID-CT-MD/volumes') / 'P001.npz').voxels
    grey = np.clip((hu + 1000.) / 1400 * 255, 0, 255).astype(np.uint8)
    for i, plane in enumerate(grey):
        Image.fromarray(plane).save(tmp_path / f'P001 [{i}].png')
    np.testing.assert_array_equal(decode(tmp_path).voxels, grey)


def deep_png(path, values):
    """A PNG of 16 bits, [height, width, 2, 3 or 4], which Pillow does not write."""
    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    height, width, channels = values.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    header = struct.pack('>IIBBBBB', width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


@pytest.mark.parametrize('channels', [2, 3, 4])
def test_16_bits_of_colours_or_transparency_are_refused_in_png(tmp_path, rng, channels):
    """Of which Pillow would keep 8: Hounsfield units in them would pass as grey."""
    deep_png(tmp_path / 'a.png', rng.integers(0, 2**16, (40, 40, channels)))
    refused(tmp_path / 'a.png', 'colours or transparency of 16 bits')


@pytest.mark.parametrize('planar', [False, True])
def test_16_bits_of_colours_are_refused_in_tiff_on_any_page(tmp_path, rng, planar):
    values = rng.integers(0, 2**16, (40, 40, 3)).astype(np.uint16)
    layout = {'data': values.transpose(2, 0, 1), 'planarconfig': 'separate'} if planar else {'data': values}
    tifffile.imwrite(tmp_path / 'a.tif', photometric='rgb', **layout)
    refused(tmp_path / 'a.tif', 'colours or transparency of 16 bits')
    with tifffile.TiffWriter(tmp_path / 'b.tif') as pages:
        pages.write((values >> 8).astype(np.uint8), photometric='rgb', metadata=None)
        pages.write(photometric='rgb', metadata=None, **layout)
    refused(tmp_path / 'b.tif', 'colours or transparency of 16 bits')
