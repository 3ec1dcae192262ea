"""What the benchmarks share: several things run in turn in one process, each timed by wall and CPU."""

import time
from collections.abc import Callable, Mapping

WARM_UP = 2  # rounds that are not counted


def measure(runs: Mapping[str, Callable], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """{name: (wall, CPU) seconds of each round}. A run ends only when what it computes is there."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for i in range(rounds + WARM_UP):
        for name, run in runs.items():
            wall = time.perf_counter()
            spent = time.process_time()
            run()
            if i >= WARM_UP:
                times[name].append((time.perf_counter() - wall, time.process_time() - spent))
    return times
