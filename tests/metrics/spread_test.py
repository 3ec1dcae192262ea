from covid_jax.metrics.spread import spread


def test_folds_and_seeds_apart():
    """By hand: folds of 0.6 and 0.9, both with seeds 0.1 below and above: means 0.6, 0.9 over folds, 0.65, 0.85 over seeds."""
    found = spread([[0.5, 0.7], [0.8, 1.0]])
    assert abs(found.mean - 0.75) < 1e-12
    assert abs(found.over_folds - 0.3 / 2**0.5) < 1e-12  # of two numbers: their distance over the root of two
    assert abs(found.over_seeds - 0.2 / 2**0.5) < 1e-12


def test_of_one_there_is_no_spread():
    assert spread([[0.5, 0.7]]).over_folds is None
    assert spread([[0.5], [0.7]]).over_seeds is None
