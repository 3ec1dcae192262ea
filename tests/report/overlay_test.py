"""covid-jax explain: pictures, and a map that lies over the scan however its axes are stored."""

from types import SimpleNamespace

import flax.linen as nn
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import SimpleITK
from dicoms import series
from nibabel.orientations import axcodes2ornt
from PIL import Image
from volumes import RAS

from covid_jax import UserError, cli, start
from covid_jax.commands import explain
from covid_jax.data.prep import Prep
from covid_jax.methods.method import Method, to_float
from covid_jax.report import dicom_out, gradcam, overlay, plots

SPACING = (2.5, 0.8, 0.7)


class Cells(nn.Module):
    """A map of means over cells of 2 x 4 x 4, and the logit of class 1 is their sum; class 0 has none."""

    def trunk(self, image, train=False, site=None, group=None):
        return nn.avg_pool(image, (2, 4, 4), (2, 4, 4))

    def __call__(self, image, train=False, site=None, group=None):
        x = self.trunk(image)
        return jnp.stack([jnp.zeros(len(x)), x.sum((1, 2, 3, 4))], 1), {'map': x, 'features': x.reshape(len(x), -1)}


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
    """A run of Cells and its state."""
    net = Cells()

    def predict(params, state, batch, key=None):
        logits, out = net.apply({}, to_float(batch['image']))
        return {'features': out['features'], 'logits': logits}

    folder = tmp_path_factory.mktemp('runs') / 'cells'
    folder.mkdir()
    (folder / 'predictions.csv').touch()
    run = SimpleNamespace(method=Method(net, None, None, predict), prep=Prep((-1000.0, 0.0), (4, 16, 16)), sites=(),
                          classes=('noncovid', 'covid'), folder=folder)
    return run, SimpleNamespace(params={'network': {}}, state={'network': {}})


@pytest.fixture(scope='module')
def person():
    """The NIfTI of a volume [z, y, x] = (9, 20, 25) that is bright in one corner."""
    hu = np.random.default_rng(3).integers(-1000, -500, (9, 20, 25)).astype(np.int16)
    hu[5:, :8, :10] = 0
    x, y, z = SPACING[::-1]
    affine = np.array([[-x, 0, 0, 80], [0, -y, 0, -5], [0, 0, z, 33], [0, 0, 0, 1]])
    return nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)


def explained(opened, path, target=1):
    return gradcam.explain(*opened, path, target)


@pytest.mark.parametrize('codes', RAS)
def test_however_a_scan_is_stored_its_map_is_the_same_in_the_patient(opened, person, codes, tmp_path):
    """Its file has the axes of the scan's file; nibabel turns it into one order, where voxels and affine agree."""
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(person.affine), axcodes2ornt(codes))
    source = person.as_reoriented(turn)
    nibabel.save(source, tmp_path / 'scan.nii.gz')
    (tmp_path / 'heat.nii.gz').write_bytes(overlay.heat_nifti(explained(opened, tmp_path / 'scan.nii.gz')))
    heat = nibabel.load(tmp_path / 'heat.nii.gz')
    assert heat.get_data_dtype() == np.float32 and heat.shape == source.shape
    np.testing.assert_allclose(heat.affine, source.affine, atol=1e-5)
    np.testing.assert_allclose(heat.get_qform(coded=True)[0], source.affine, atol=1e-5)
    turned = nibabel.as_closest_canonical(heat)
    reference = nibabel.as_closest_canonical(nibabel.Nifti1Image(explained(opened, _plain(person, tmp_path)).heat.T, person.affine))
    np.testing.assert_allclose(turned.affine, reference.affine, atol=1e-4)
    np.testing.assert_allclose(turned.get_fdata(), reference.get_fdata(), atol=1e-4)
    hot = np.unravel_index(np.argmax(turned.get_fdata()), turned.shape)
    bright = nibabel.as_closest_canonical(person).get_fdata()
    assert turned.get_fdata().max() == 1 and bright[hot] == 0


def _plain(person, folder):
    """The person in the order of a Scan."""
    nibabel.save(person, folder / 'plain.nii')
    return folder / 'plain.nii'


def test_without_directions_the_map_says_none(opened, tmp_path):
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)).save(tmp_path / 'a.png')
    (tmp_path / 'heat.nii.gz').write_bytes(overlay.heat_nifti(explained(opened, tmp_path / 'a.png')))
    heat = nibabel.load(tmp_path / 'heat.nii.gz')
    assert heat.shape == (30, 20, 1) and heat.header['sform_code'] == heat.header['qform_code'] == 0
    np.savez(tmp_path / 'b.npz', hu=np.zeros((4, 16, 18), np.int16), spacing_mm=np.array(SPACING))
    (tmp_path / 'heat.nii.gz').write_bytes(overlay.heat_nifti(explained(opened, tmp_path / 'b.npz')))
    np.testing.assert_allclose(nibabel.load(tmp_path / 'heat.nii.gz').header.get_zooms(), SPACING[::-1], rtol=1e-6)


def test_the_map_of_a_series_lies_over_it_for_itk(opened, tmp_path):
    files = series(tmp_path / 'scan', (0, 2, 4, 6))
    (tmp_path / 'heat.nii.gz').write_bytes(overlay.heat_nifti(explained(opened, tmp_path / 'scan')))
    heat = SimpleITK.ReadImage(str(tmp_path / 'heat.nii.gz'))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    scan = reader.Execute()
    assert heat.GetSize() == scan.GetSize()
    for index in ((0, 0, 0), (7, 5, 3)):
        np.testing.assert_allclose(heat.TransformIndexToPhysicalPoint(index), scan.TransformIndexToPhysicalPoint(index), atol=1e-4)


def test_slices_that_matter_are_the_hottest_and_lie_apart():
    heat = np.zeros((80, 2, 2), 'f')
    heat[[39, 40, 70, 5], 0, 0] = 0.9, 1, 0.5, 0.4
    heat[20, 0, 0] = 0.1
    assert overlay.slices_that_matter(heat) == [5, 40, 70]
    assert overlay.slices_that_matter(np.zeros((80, 2, 2), 'f')) == []
    assert overlay.slices_that_matter(heat[40:41]) == [0]


def test_pictures_say_run_scan_class_and_probability(opened, person, tmp_path, monkeypatch):
    e = explained(opened, _plain(person, tmp_path))._replace(probability=np.array([0.25, 0.75]))
    assert overlay.title_of(e, 'runs/cells', '$anna') == 'runs/cells: $anna\ncovid: probability 0.750, one plain view, not calibrated'
    shown = overlay.write(tmp_path / 'out', e, 'runs/cells', '$anna')
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == sorted(['heat.nii.gz', 'overlay.png', *(f'slice_{z:03d}.png' for z in shown)]) and len(shown) > 1
    for path in (tmp_path / 'out').glob('*.png'):
        with Image.open(path) as picture:
            assert picture.size[0] > 500
    figure = overlay.close_up(e, shown[-1])
    assert [text.get_text() for text in figure.axes[0].texts] == ['R', 'L']
    monkeypatch.setattr(plots, 'save', not_drawn)
    blank = e._replace(heat=np.zeros_like(e.heat))
    assert overlay.write(tmp_path / 'out', blank, 'runs/cells', 'anna') == []
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['heat.nii.gz', 'overlay.png']


def not_drawn(path, figure, title):
    path.touch()


def asked(opened, monkeypatch, *arguments):
    monkeypatch.setattr(start, 'load', lambda folder: opened)
    monkeypatch.setattr(plots, 'save', not_drawn)
    cli.run(['explain', *map(str, arguments), f'--run={opened[0].folder}'])


def test_many_scans_get_a_folder_each_and_a_broken_one_is_a_line(opened, person, tmp_path, monkeypatch, capsys):
    for name in ('anna', 'ben'):
        (tmp_path / name).mkdir()
        _plain(person, tmp_path / name)
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    asked(opened, monkeypatch, tmp_path / 'anna/plain.nii', tmp_path / 'broken.png', tmp_path / 'ben/plain.nii', '--class=covid',
          f'--out={tmp_path / "out"}')
    out = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['plain.nii', 'plain.nii_2']
    assert f'no map, {tmp_path / "broken.png"}: ' in out and 'covid, ' in out and 'most heat in slices' in out
    asked(opened, monkeypatch, tmp_path / 'anna/plain.nii', '--class=noncovid', f'--out={tmp_path / "out"}')
    assert 'nothing in it speaks for noncovid, the map is 0' in capsys.readouterr().out


@pytest.mark.parametrize('option, words', [('--class=flu', 'the classes of .* are noncovid, covid'), ('--layer=none', 'no map is called')])
def test_what_a_run_does_not_have_is_one_line(opened, person, option, words, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=words):
        asked(opened, monkeypatch, _plain(person, tmp_path), option, f'--out={tmp_path / "out"}')


def test_a_run_of_several_trainings_is_one_line(opened, monkeypatch, tmp_path):
    monkeypatch.setattr('covid_jax.runs.parts', lambda run: [SimpleNamespace(folder=f'{run}/fold{i}/seed0') for i in range(2)])
    with pytest.raises(UserError, match='has 2 trainings, a map is of one: give --run=.*fold0/seed0'):
        asked(opened, monkeypatch, 'a', f'--out={tmp_path}')


def test_nothing_is_written_between_the_slices_of_a_scan(opened, tmp_path, monkeypatch):
    for name in ('slice_1.png', 'slice_2.png'):
        (tmp_path / 'anna').mkdir(exist_ok=True)
        Image.new('L', (16, 16), 9).save(tmp_path / 'anna' / name)
    with pytest.raises(UserError, match='would put pictures between the slices of'):
        asked(opened, monkeypatch, tmp_path / 'anna', f'--out={tmp_path}')
    overlay.write(tmp_path / 'anna', explained(opened, tmp_path / 'anna'), 'run', 'anna')
    assert (tmp_path / 'anna' / 'slice_1.png').exists()


def test_folders_are_named_by_scans_and_never_lead_out():
    paths = ['a/b.nii', 'c/B.nii', '..', 'x/..', 'phantom:0:1:covid', 'd::series=1/2', 'b.nii_2']
    names = [str(path) for path in explain.folders(paths, 'out')]
    assert len({name.lower() for name in names}) == len(paths) and all(name.count('/') == 1 and '..' not in name for name in names)
    assert names[:3] == ['out/b.nii', 'out/B.nii_2', 'out/scan'] and names[4] == 'out/phantom_0_1_covid'


def test_without_highdicom_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'covid-jax\[dicom-out\]'"):
        dicom_out.check_installed()
