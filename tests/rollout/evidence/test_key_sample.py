"""The quick ways to count keys agree with the plain ones."""

import numpy as np
import pytest

from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import Latencies


@pytest.mark.parametrize("keys_max", [50, 1_000_000])
def test_key_sample_count_new_equals_the_sizes_of_add_new(keys_max: int) -> None:
    """Numbers and remembered keys agree for repeated keys, keys of both arms, and thinning."""
    rng = np.random.default_rng(1)
    counted, added = KeySample(keys_max), KeySample(keys_max)
    for _ in range(60):
        candidate, baseline = (rng.integers(0, 1 << 62, 40) % 1_009 * 65_521 for _ in range(2))
        numbers = counted.count_new(candidate.tolist(), baseline.tolist())
        sets = added.add_new(set(candidate.tolist()), set(baseline.tolist()))
        assert numbers == (len(sets[0]), len(sets[1]))
        assert (counted.keys, counted.sampled_of_65536) == (added.keys, added.sampled_of_65536)
    assert (counted.sampled_of_65536 < 65_536) == (keys_max == 50)


def test_latencies_beyond_edges_are_the_same_keys_with_and_without_batches() -> None:
    """Each edge has its own keys. A key with several records has its largest batch."""
    bins = [10, 20, 21, 30, 31, 40, 41, 41]
    keys = [1, 2, 3, 4, 5, 6, 7, 7]
    plain = Latencies(keys, bins, []).keys_beyond(20, 30, 40)
    batched = Latencies(keys, bins, [1] * 7 + [4]).batch_events_beyond(20, 30, 40)
    for plain_keys, other, expected in zip(
        plain, batched, ({3, 4, 5, 6, 7}, {5, 6, 7}, {7}), strict=True
    ):
        assert set(plain_keys) == set(other.keys) == expected
    assert batched[2].weight_of({7}) == 1 / 4
