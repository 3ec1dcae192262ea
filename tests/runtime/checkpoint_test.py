"""What is kept of the states of a training, and what a later run finds of them."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax import UserError
from covid_jax.runtime import checkpoint, mesh, state


def train_state(value, step):
    params = {'w': jnp.full((4, 2), value), 'b': jnp.full(2, value)}
    return state.create(params, {'mean': jnp.full(3, value)}, optax.adam(1e-3)).replace(step=jnp.int32(step))


def test_last_and_best_are_kept_and_the_later_of_equals(tmp_path):
    for step, score in ((1, 0.6), (2, 0.9), (3, 0.9), (4, 0.7), (5, None)):
        with checkpoint.manager(tmp_path) as m:  # a fresh manager each time, as after a restart
            checkpoint.save(m, train_state(float(step), step), score)
    with checkpoint.manager(tmp_path) as m:
        assert sorted(m.all_steps()) == [3, 4, 5] and m.best_step() == 3 and m.latest_step() == 5
        like = train_state(0.0, 0)
        restored = checkpoint.restore(checkpoint.at(m, 3), like)
        jax.tree.map(np.testing.assert_array_equal, restored, train_state(3.0, 3))


def test_a_checkpoint_moves_between_numbers_of_devices(tmp_path):
    def on(devices):
        return jax.device_put(train_state(1.5, 7), mesh.replicated(mesh.make_mesh(jax.devices()[:devices])))

    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, on(8))
        m.wait_until_finished()
        for devices in (1, 2, 8):
            restored = checkpoint.restore(checkpoint.at(m, 7), jax.tree.map(lambda x: x * 0, on(devices)))
            assert restored.params['w'].sharding == on(devices).params['w'].sharding
            jax.tree.map(np.testing.assert_array_equal, restored, on(devices))


def test_another_network_is_one_line(tmp_path):
    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, train_state(1.0, 1))
        m.wait_until_finished()
        other = train_state(1.0, 1).replace(params={'w': jnp.zeros((4, 3)), 'b': jnp.zeros(2)})
        with pytest.raises(UserError, match=r'another network.*params/w \(4, 2\) there, \(4, 3\) here'):
            checkpoint.restore(checkpoint.at(m, 1), other)


def test_a_start_takes_what_agrees_in_name_and_shape(tmp_path):
    with checkpoint.manager(tmp_path / 'checkpoints') as m:
        checkpoint.save(m, train_state(2.0, 1), 0.5)
        checkpoint.save(m, train_state(3.0, 2), 0.4)
    step, saved = checkpoint.read(tmp_path)
    assert step == 1 and (saved['state']['mean'] == 2).all()  # the best, not the last
    like = {'w': jnp.zeros((4, 2)), 'b': jnp.zeros(3), 'new': {'b': jnp.zeros(2)}}
    started, kept = checkpoint.put(saved['params'], like)
    assert (started['w'] == 2).all() and (started['b'] == 0).all() and kept == ['b', 'new/b']
    started, kept = checkpoint.put(saved['params'], {'w': jnp.zeros((4, 2)), 'b': jnp.zeros(2)}, skip=('w',))
    assert (started['w'] == 0).all() and (started['b'] == 2).all() and kept == ['w']


@pytest.mark.parametrize('left', [0, 100])
def test_a_damaged_checkpoint_is_one_line(tmp_path, left):
    with checkpoint.manager(tmp_path / 'checkpoints') as m:
        checkpoint.save(m, train_state(2.0, 1), 0.5)
    for path in (tmp_path / 'checkpoints').rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match='checkpoints/1 is damaged') as e:
        checkpoint.read(tmp_path)
    assert '\n' not in str(e.value)


def test_where_weights_are_averaged_their_average_is_read_and_both_go_on(tmp_path):
    started = train_state(2.0, 1).replace(state={'network': jnp.full(3, 2.0), 'queue': jnp.full(3, 7.0)})
    averaged = started.replace(average={'params': jax.tree.map(lambda x: x + 1, started.params), 'network': jnp.full(3, 5.0)})
    with checkpoint.manager(tmp_path / 'checkpoints') as m:
        checkpoint.save(m, averaged)
        m.wait_until_finished()
        restored = checkpoint.restore(checkpoint.at(m, 1), averaged)
        jax.tree.map(np.testing.assert_array_equal, restored, averaged)
        with pytest.raises(UserError, match='another network or optimizer'):
            checkpoint.restore(checkpoint.at(m, 1), started)
    _, saved = checkpoint.read(tmp_path)
    assert (saved['params']['w'] == 3).all() and (saved['state']['network'] == 5).all() and (saved['state']['queue'] == 7).all()
    with checkpoint.manager(tmp_path / 'without' / 'checkpoints') as m:
        checkpoint.save(m, started)
    assert 'average' not in checkpoint.read(tmp_path / 'without')[1]


def test_how_long_the_best_score_stands(tmp_path):
    """An equal score is kept as the best, and is no better one; nor is what a restart finds."""
    waited = []
    for step, score in ((1, 0.6), (2, 0.9), (3, 0.9), (4, 0.7), (5, None), (6, 0.91)):
        with checkpoint.manager(tmp_path) as m:  # a fresh manager each time, as after a restart
            checkpoint.save(m, train_state(float(step), step), score)
            waited.append(checkpoint.since_better(m, step))
    assert waited == [0, 0, 1, 2, 3, 0]
    with checkpoint.manager(tmp_path / 'none') as m:
        assert checkpoint.since_better(m, 7) == 0


def test_a_finished_checkpoint_is_not_written_again(tmp_path):
    """And no best is noted for one that was saved without a score."""
    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, train_state(1.0, 4))
        checkpoint.save(m, train_state(2.0, 4), 0.5)
        m.wait_until_finished()
        assert m.best_step() is None and checkpoint.since_better(m, 9) == 0
        assert float(checkpoint.restore(checkpoint.at(m, 4), train_state(0.0, 0)).params['b'][0]) == 1.0


def test_the_latest_step_is_of_a_finished_checkpoint(tmp_path):
    assert checkpoint.latest_step(tmp_path / 'none') is None
    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, train_state(1.0, 9), 0.9)
        checkpoint.save(m, train_state(1.0, 10), 0.1)
    (tmp_path / '11.orbax-checkpoint-tmp').mkdir()  # of a process that was killed in the middle of a save
    assert checkpoint.latest_step(tmp_path) == 10


def test_a_folder_without_a_finished_checkpoint_is_one_line(tmp_path):
    with pytest.raises(UserError, match='holds no checkpoints: give the folder of a finished run'):
        checkpoint.read(tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    with pytest.raises(UserError, match='holds no finished checkpoint'):
        checkpoint.read(tmp_path)


def saved(folder, *scores):
    """Checkpoints of steps 1, 2, ... with these scores."""
    with checkpoint.manager(folder / 'checkpoints') as m:
        for step, score in enumerate(scores, 1):
            checkpoint.save(m, train_state(float(step), step), score)


def files_of(folder, step):
    return sorted(path for path in (folder / 'checkpoints' / str(step)).rglob('*') if path.is_file())


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize('flips', [40, pytest.param(300, marks=pytest.mark.slow)])
def test_no_flipped_bit_changes_a_number_in_silence(tmp_path, flips):
    """Spread over all files of the newest checkpoint: it is taken for damaged, or all that is read is what was saved."""
    saved(tmp_path, 0.5, 0.9)
    whole = checkpoint.read(tmp_path)
    files = [path for path in files_of(tmp_path, 2) if path.stat().st_size]
    rng = np.random.default_rng(0)
    noticed = 0
    for i in range(flips):
        path = files[i % len(files)]
        content = path.read_bytes()
        flip(path, int(rng.integers(8 * len(content))))
        try:
            jax.tree.map(np.testing.assert_array_equal, checkpoint.read(tmp_path), whole)
        except checkpoint.Damaged as e:
            noticed += 1
            assert str(tmp_path) in str(e)
        path.write_bytes(content)
    assert noticed > flips / 4
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read(tmp_path), whole)


def test_where_the_last_checkpoint_is_damaged_the_one_before_it_goes_on(tmp_path):
    """Its files cut short, taken away or changed, one at a time, and all of them gone."""
    saved(tmp_path / 'whole', 0.9, 0.5, 0.6)

    def without(path):
        path.unlink()

    def cut(path):
        path.write_bytes(path.read_bytes()[:5])

    def changed(path):
        path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))

    set_aside = 0
    for k in range(len(files_of(tmp_path / 'whole', 3)) + 1):
        folder = tmp_path / str(k)
        shutil.copytree(tmp_path / 'whole', folder)
        if k < len(files_of(folder, 3)):
            (without, cut, changed)[k % 3](files_of(folder, 3)[k])
        else:
            shutil.rmtree(folder / 'checkpoints' / '3')
            (folder / 'checkpoints' / '3').mkdir()
        said = []
        step, found = checkpoint.newest(folder / 'checkpoints', said.append)
        with checkpoint.manager(folder / 'checkpoints') as m:
            assert m.latest_step() == step
        restored = checkpoint.restore(found, train_state(0.0, 0))
        jax.tree.map(np.testing.assert_array_equal, restored, train_state(float(step), step))
        if step == 2:
            set_aside += 1
            assert len(said) == 1 and 'is damaged' in said[0] and (folder / 'damaged' / '3').is_dir()
        else:
            assert step == 3 and not said
    assert set_aside > 4


def test_a_damaged_checkpoint_that_may_be_the_best_is_not_passed_over(tmp_path):
    saved(tmp_path, 0.9, 0.5, 0.6)
    flip(tmp_path / 'checkpoints' / '1' / 'metrics' / 'metrics', 90)
    with pytest.raises(UserError, match=r'checkpoints/1 is damaged \(its record\). It may be the best .*: delete that folder'):
        checkpoint.newest(tmp_path / 'checkpoints')
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read(tmp_path)


def test_a_checkpoint_that_is_set_aside_leaves_the_one_of_that_name_that_is_there(tmp_path):
    for times in (1, 2):
        saved(tmp_path, 0.5, 0.6)
        (tmp_path / 'checkpoints' / '2' / 'record' / 'metadata').unlink()
        checkpoint.newest(tmp_path / 'checkpoints', lambda line: None)
        assert len([*(tmp_path / 'damaged').iterdir()]) == times


def test_a_score_that_is_no_number_is_no_score(tmp_path):
    saved(tmp_path, 0.5, math.nan, 0.4)
    assert checkpoint.read(tmp_path)[0] == 1


def test_what_the_best_score_is_does_not_hang_on_a_checkpoint_that_is_gone(tmp_path):
    """The best of equals is the later one, but the step that first reached the score is that of the first."""
    saved(tmp_path, 0.9, 0.8, 0.9)  # 1 is gone, 2 and 3 are kept
    (tmp_path / 'checkpoints' / '3' / 'record' / 'metadata').unlink()
    assert checkpoint.newest(tmp_path / 'checkpoints', lambda line: None)[0] == 2
    with checkpoint.manager(tmp_path / 'checkpoints') as m:
        checkpoint.save(m, train_state(3.0, 3), 0.9)
        assert checkpoint.since_better(m, 5) == 4


def test_a_checkpoint_of_an_older_version_has_no_digests(tmp_path):
    saved(tmp_path, 0.9, 0.5)
    for step in (1, 2):
        shutil.rmtree(tmp_path / 'checkpoints' / str(step) / 'record')
    assert checkpoint.newest(tmp_path / 'checkpoints')[0] == 2 and checkpoint.read(tmp_path)[0] == 1
