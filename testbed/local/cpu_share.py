"""How busy the whole machine is."""

from __future__ import annotations

from pathlib import Path

_STAT = Path("/proc/stat")


class CpuShare:
    """Share of all cores' time that was not idle between :meth:`begin` and :meth:`end`."""

    def __init__(self) -> None:
        self._begin: tuple[int, int] | None = None
        self._end: tuple[int, int] | None = None

    def begin(self) -> None:
        """Starts the measurement."""
        self._begin = _jiffies()

    def end(self) -> None:
        """Ends it; only the first call counts."""
        if self._end is None:
            self._end = _jiffies()

    def share(self) -> float | None:
        """The share, or None where it could not be measured (no /proc, or never begun)."""
        if self._begin is None or self._end is None:
            return None
        busy, total = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        return busy / total if total else None


def _jiffies() -> tuple[int, int] | None:
    if not _STAT.exists():
        return None
    values = [int(value) for value in _STAT.read_text().splitlines()[0].split()[1:9]]
    idle = values[3] + values[4]
    return sum(values) - idle, sum(values)
