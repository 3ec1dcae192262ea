import jax.numpy as jnp
import numpy as np

from covid_jax.augment.mixup import mix, partner_views

VIEWS = jnp.arange(8)  # scans 0..3, views interleaved: scan k has rows 2k and 2k + 1


def test_partner_is_a_view_of_the_neighbouring_scan():
    np.testing.assert_array_equal(partner_views(VIEWS, jnp.array([False, False])), [2, 3, 0, 1, 6, 7, 4, 5])
    np.testing.assert_array_equal(partner_views(VIEWS, jnp.array([True, False])), [3, 2, 1, 0, 6, 7, 4, 5])
    for coins in ([0, 0], [0, 1], [1, 1]):
        partner = partner_views(VIEWS, jnp.array(coins, bool))
        np.testing.assert_array_equal(partner[partner], VIEWS)


def test_volumes_and_labels_follow_each_other(rng):
    x = rng.random((8, 2, 3, 3, 1), np.float32)
    coins = jnp.array([True, False])
    partner = partner_views(VIEWS, coins)
    np.testing.assert_array_equal(partner_views(x, coins), x[partner])


def test_mix_by_hand():
    np.testing.assert_allclose(mix(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.75), [0.75, 0.25])
