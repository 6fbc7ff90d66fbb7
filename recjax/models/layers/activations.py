"""Activation functions by the names of Hugging Face's `hidden_act`."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Exact GELU, faster on a CPU than `jax.nn.gelu(approximate=False)`.

    JAX's version goes through `erfc`, which is accurate far out in the tail; nothing
    here needs that accuracy.
    """
    return (0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))).astype(x.dtype)


def _gelu_fwd(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_bwd(x: Array, grad: Array) -> tuple[Array]:
    # d/dx x Phi(x) = Phi(x) + x phi(x). Only x is kept for the backward pass; automatic
    # differentiation would keep intermediate results too.
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    slope = 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))) + x * density
    return ((grad * slope).astype(x.dtype),)


gelu.defvjp(_gelu_fwd, _gelu_bwd)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
