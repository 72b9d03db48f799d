"""The rounds of a center that pushes its offers to global servers, and pulls parameters."""

from __future__ import annotations

from geojax.hips.exchange.rounds import RoundBook


class PushedRounds(RoundBook):
    """All rounds of a center that are not over: its offers are kept until all are answered.

    Args:
      chunks: number of chunks of the vector.

    Attributes:
      returning: this member comes back, and pulls the parameters of round ``held`` without a push.
      retired: it makes no more offers.
    """

    def __init__(self, chunks: int):
        super().__init__()
        self._chunks = chunks
        self.returning = self.retired = False

    def pulls(self, number: int) -> bool:
        """Whether parameters after this round come without a push."""
        return self.returning and number == self.held

    def awaits(self, number: int, chunk: int) -> bool:
        """Whether a push of this chunk is not answered yet."""
        return self.has_offer(number, chunk) and not self.has_result(number, chunk)

    def unasked(self, number: int, chunk: int) -> str:
        """Why an answer breaks the protocol; "": it does not."""
        if not self.pulls(number) and not self.has_offer(number, chunk):
            return "no answer to a push of this member"
        return "it is here already" if self.has_result(number, chunk) else ""

    def hold(self, number: int) -> bool:
        """Whether a round is whole, and held from now on."""
        whole = self[number].given == self._chunks
        if whole:
            self.held, self.returning = number, False
        return whole
