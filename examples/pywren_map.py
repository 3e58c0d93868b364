"""PyWren's first example, unchanged but for the import: a thousand calls of a small function.

Without an AWS configuration it runs on the local cloud: `python examples/pywren_map.py`.
"""

from __future__ import annotations

import time

import numpy as np

from wren_backends import pywren

CALLS = 1000


def foo(scale: float) -> float:
    """The spread of ten thousand random numbers, which is that of their distribution."""
    return float(np.random.normal(0, scale, 10_000).std())


def main() -> None:
    """Map it over a thousand numbers, and reduce what comes of it."""
    scales = np.linspace(0.1, 100, CALLS)
    executor = pywren.default_executor()
    began = time.time()
    futures = executor.map(foo, scales)
    found = pywren.get_all_results(futures)
    took_s = time.time() - began
    furthest = max(abs(one / scale - 1) for one, scale in zip(found, scales, strict=True))
    if furthest > 0.1:
        raise SystemExit(f"a result is off by {furthest:.0%}")
    environments = {future.run_status["environment_id"] for future in futures}
    print(f"{CALLS} calls in {took_s:.2f} s on {len(environments)} execution environments")
    print(f"their largest result, by reduce: {executor.reduce(max, futures).result():.2f}")


if __name__ == "__main__":
    main()
