"""What a soak's samples say: slopes that outliers do not move, latencies of the beginning against those of the end."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

Points = Sequence[tuple[float, float]]
_BUCKET = re.compile(r'(?P<name>\w+)_bucket\{le="(?P<le>[^"]+)"\}')


def figures(metrics: str) -> dict[str, float]:
    """The samples of an OpenMetrics text: by name, or by name and labels."""
    found = {}
    for line in metrics.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def slope(points: Points) -> float:
    """Theil and Sen's: the median of the slopes between all pairs."""
    found = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1]
    return statistics.median(found) if found else 0.0


def series(samples: Iterable[Mapping[str, float]], name: str) -> Points:
    """One figure over time."""
    return [(sample["at"], sample[name]) for sample in samples if name in sample]


def first_and_last_third(points: Points, begin: float, end: float, share: float) -> tuple[float, float]:
    """A percentile of what lies in the first third of a time, and in the last; NaN for none."""
    third = (end - begin) / 3
    early = [y for x, y in points if begin <= x < begin + third]
    late = [y for x, y in points if end - third <= x < end]
    return _percentile(early, share), _percentile(late, share)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def bucket_quantile(before: Mapping[str, float], after: Mapping[str, float], histogram: str, share: float) -> float:
    """A quantile of what a histogram took in between two samples, within its bucket by linear interpolation; NaN for nothing."""
    counts = []
    for key in after:
        found = _BUCKET.fullmatch(key)
        if found is not None and found["name"] == histogram:
            counts.append((float(found["le"].replace("+Inf", "inf")), after[key] - before.get(key, 0.0)))
    counts.sort()
    whole = counts[-1][1] if counts else 0.0
    if not whole:
        return float("nan")
    below_le, below = 0.0, 0.0
    for le, count in counts:
        if count >= share * whole:
            return (
                below_le
                if le == float("inf")
                else below_le + (le - below_le) * (share * whole - below) / max(1.0, count - below)
            )
        below_le, below = le, count
    return float("nan")
