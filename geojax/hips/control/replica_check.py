"""Whether all centers hold the same parameters after a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from geojax.errors import ReplicaDeviation


class ReplicaCheck:
    """Compares the digests that centers tell of their parameters."""

    def __init__(self) -> None:
        self._digests: dict[int, dict[str, str]] = {}

    def forget(self, dead: Sequence[str]) -> None:
        """Drops what members told that have died.

        A round that only they held runs again without them, to another result, and who comes back
        goes on from that one.
        """
        for told in self._digests.values():
            for name in dead:
                told.pop(name, None)

    def take(self, name: str, number: int, digest: str, centers: Sequence[str]) -> None:
        """Takes a center's digest after a round; the last one makes the comparison.

        Raises:
          ReplicaDeviation: names the living ``centers`` whose parameters are not the majority's.
        """
        told = self._digests.setdefault(number, {})
        told[name] = digest
        if not all(center in told for center in centers):
            return
        for old in [n for n in self._digests if n <= number]:
            del self._digests[old]
        common, votes = Counter(told[center] for center in centers).most_common(1)[0]
        if votes == len(centers):
            return
        odd = [center for center in centers if told[center] != common]
        rest = [center for center in centers if center not in odd]
        if votes <= len(odd):
            raise ReplicaDeviation(
                f"after round {number} the parameters of {', '.join(centers)} differ, and no "
                "majority of them agrees"
            )
        raise ReplicaDeviation(
            f"after round {number} the parameters of {', '.join(odd)} differ from those of "
            f"{', '.join(rest)}"
        )
