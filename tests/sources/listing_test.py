from covid_jax.sources.listing import say_other_counts


def test_only_other_counts_than_the_papers_are_said():
    said = []
    say_other_counts('X', ['covid', 'normal', 'covid'], {'covid': 2, 'normal': 1}, said.append)
    assert said == []
    say_other_counts('X', ['covid', 'odd'], {'covid': 2}, said.append)
    assert said == ['X: other counts than in the paper: 1 covid (the paper: 2), 1 odd (the paper: 0)']
