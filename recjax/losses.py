"""Training losses: one value per user before any mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Loss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def softmax(
    logits_BxTxU: jax.Array,
    targets_BxT: jax.Array,
    mask_BxT: jax.Array,
    log_weight_U: jax.Array,
) -> jax.Array:
    """Cross-entropy over U candidates, summed over each user's targets: loss_B.

    The partition sum is `exp(s_target) + sum over other u of w_u exp(s_u)`. With
    w = 1 over the whole catalogue this is the full softmax. In a batch where item u
    is a target c_u times, w_u = c_u is the plain in-batch softmax with accidental
    hits removed, and w_u = c_u / E[c_u] the logQ-corrected one (Bengio and Senecal,
    2008; Yi et al., 2019), whose partition sum over the negatives is unbiased.

    Args:
      logits_BxTxU: scores of the candidates.
      targets_BxT: index of each target among the candidates.
      mask_BxT: which targets count.
      log_weight_U: log w; -inf keeps a candidate out.
    """
    logits_BxTxU = logits_BxTxU.astype(jnp.float32)
    index_BxTx1 = targets_BxT[..., None]
    target_BxT = jnp.take_along_axis(logits_BxTxU, index_BxTx1, axis=-1)[..., 0]
    is_target = jnp.arange(logits_BxTxU.shape[-1]) == index_BxTx1
    weighted = logits_BxTxU + jnp.where(is_target, 0.0, log_weight_U)
    loss_BxT = jax.nn.logsumexp(weighted, axis=-1) - target_BxT
    return jnp.where(mask_BxT, loss_BxT, 0.0).sum(axis=-1)


LOSSES: dict[str, Loss] = {"softmax": softmax}
NEGATIVES = ("all", "in_batch")
