"""In which order what waits for a peer leaves: the smaller priority first.

Control goes before all chunks, and the chunks of an older round before those of a newer one,
whatever their places; so a chunk waits for those that were due before it, never for all that may
still come. Late parts go when no chunk waits, the oldest round first, and probes when nothing does.

A link may have room for some of a round's late parts only. Those of round r that still wait are
dropped when one of round r + 2 is queued (:func:`outdated`), so that the parts of two rounds wait
at most. Which chunk comes first changes from round to round: it is not always the same ones that
are dropped.
"""

from __future__ import annotations

from geojax.wire.message import Kind, Message

CONTROL_PRIORITY = -1
LATE_ROUNDS = 2  # how many rounds' late parts wait at most
_PLACES = 1 << 32  # more than any vector has chunks
_LATE = _PLACES << 32  # more than any chunk's
PROBE_PRIORITY = _LATE << 33


def chunk_priority(number: int, place: int) -> int:
    """Of a chunk of round ``number`` that is the ``place``-th of its round.

    >>> chunk_priority(3, 9) < chunk_priority(4, 0) < late_priority(3, 0, 10) < PROBE_PRIORITY
    True
    """
    return max(0, number + 1) * _PLACES + place


def late_priority(number: int, chunk: int, chunks: int) -> int:
    """Of the late part of one of so many chunks.

    >>> sorted(range(4), key=lambda chunk: late_priority(5, chunk, 4))
    [1, 2, 3, 0]
    """
    return _LATE + chunk_priority(number, (chunk - number) % chunks)


def outdated(waiting: Message, queued: Message) -> bool:
    """Whether a message that waits is dropped because another one is queued now."""
    return waiting.kind is Kind.LATE is queued.kind and waiting.round <= queued.round - LATE_ROUNDS
