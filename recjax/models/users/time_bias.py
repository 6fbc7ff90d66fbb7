"""Attention biases by the time between two events."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

UNKNOWN = 0  # bucket of two events of which one has no known time
# The others are 0 s, 1 s, 2 to 3 s, 4 to 7 s and so on, up to 2^31 - 1 s, 68 years.
NUM_BUCKETS = 33


class RelativeTimeBias(nn.Module):
    """Learned attention bias per head and time between two events, initially zero.

    The buckets of times grow by factors of two, as in HSTU (Zhai et al., 2024, section
    3.2), whose queries are at the time of the next request. Here a query is at the time
    of its own event: a list is made before the time of the next event is known.
    """

    num_heads: int

    @nn.compact
    def __call__(self, times_BxH: Array) -> Array:
        """Returns bias_BxAxHxH for A heads.

        Args:
          times_BxH: seconds from any start per user, int32; negative where unknown.
        """
        zeros = nn.initializers.zeros
        bias_by_bucket = self.param("bias", zeros, (self.num_heads, NUM_BUCKETS))
        bias_AxBxHxH = bias_by_bucket[:, time_buckets(times_BxH)]
        return jnp.moveaxis(bias_AxBxHxH, 0, 1)


def time_buckets(times_BxH: Array) -> Array:
    """Returns the bucket of every pair of events of a user: bucket_BxHxH."""
    known_BxH = times_BxH >= 0
    # Exact in integers, so that a shorter history or another device changes no bucket.
    seconds_BxHxH = jnp.abs(times_BxH[:, :, None] - times_BxH[:, None])
    num_bits_BxHxH = 32 - jax.lax.clz(seconds_BxHxH)
    both_BxHxH = known_BxH[:, :, None] & known_BxH[:, None]
    return jnp.where(both_BxHxH, num_bits_BxHxH + 1, UNKNOWN)
