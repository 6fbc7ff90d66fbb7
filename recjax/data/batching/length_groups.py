"""Training batches of windows of similar length, which need little padding."""

import numpy as np

from recjax.data.padding import shorten

SMALLEST = 1 / 8  # of H; narrower batches would not be worth their compilation


class LengthGroups:
    """Puts windows of similar length into the same batch.

    An epoch reads every window once. Windows are shuffled, sorted by the width of the
    batch that they need, which is H, a half, a quarter or an eighth of it, and cut into
    batches, whose order is random.

    Args:
      lengths_W: number of inputs of each window.
      history_length: H.
      batch_size: B; one batch of an epoch is smaller.
      seed: seed of the order.

    Attributes:
      widths_W: width of the batch that each window needs.
    """

    def __init__(
        self, lengths_W: np.ndarray, history_length: int, batch_size: int, seed: int
    ):
        self.history_length = history_length
        self.batch_size = batch_size
        self.seed = seed
        self.widths_W = np.array([self.width(n) for n in lengths_W.tolist()], np.int64)
        self._epoch, self._batches = -1, [np.zeros(0, np.int64)]

    def width(self, longest: int) -> int:
        """Returns the width of a batch, given the length of its longest window."""
        return shorten(self.history_length, longest, SMALLEST * self.history_length)

    def batch(self, index: int) -> np.ndarray:
        """Returns the windows of a batch, counted from the first epoch's first one."""
        epoch, number = divmod(index, -(-len(self.widths_W) // self.batch_size))
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._order(epoch)
        return self._batches[number]

    def _order(self, epoch: int) -> list[np.ndarray]:
        # Derived from the epoch, so that a resumed run continues with the same batches.
        rng = np.random.default_rng((self.seed, epoch))
        order_W = rng.permutation(len(self.widths_W))
        order_W = order_W[np.argsort(self.widths_W[order_W], kind="stable")]
        cuts = np.arange(self.batch_size, len(order_W), self.batch_size)
        batches = np.split(order_W, cuts)
        return [batches[i] for i in rng.permutation(len(batches))]
