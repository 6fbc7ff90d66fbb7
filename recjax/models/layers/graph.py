"""Propagates item vectors through the graph of training events (LightGCN)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Graph = dict[str, Any]


def make_graph(users_E: np.ndarray, items_E: np.ndarray, num_items: int) -> Graph:
    """Builds the bipartite graph of the users and items of events.

    Repeated pairs count once. Returns `user_E`, `item_E` (sorted by user), `weight_E`
    (1 / root of both degrees), `root_N` (1 / root of an item's degree, 0 without an
    event) and `user_V` (the V users with an event).
    """
    distinct, users_E = np.unique(users_E, return_inverse=True)
    pairs = np.unique(users_E.astype(np.int64) * num_items + items_E)
    user_E, item_E = np.divmod(pairs, num_items)
    root_V = 1 / np.sqrt(np.bincount(user_E, minlength=len(distinct)))
    degree_N = np.bincount(item_E, minlength=num_items)
    root_N = np.where(degree_N, 1 / np.sqrt(np.maximum(degree_N, 1)), 0)
    return {
        "user_E": user_E.astype(np.int32),
        "item_E": item_E.astype(np.int32),
        "weight_E": (root_V[user_E] * root_N[item_E]).astype(np.float32),
        "root_N": root_N.astype(np.float32),
        # Only the length is read; as the shape of an array it is static under jit.
        "user_V": np.arange(len(distinct), dtype=np.int32),
    }


def propagate(vectors_NxD: Array, graph: Graph, layers: int) -> tuple[Array, Array]:
    """Light graph convolutions: returns (candidate vectors, history vectors).

    He et al., LightGCN, 2020, equations 3 to 8, for users without a vector of their
    own: item vectors go to the users and back, and the layers 0 .. K are averaged. A
    user is the sum of the history vectors over the history, divided by the root of its
    length. `layers` is K, at least 1.
    """
    user_E, item_E = graph["user_E"], graph["item_E"]
    dtype, vectors_NxD = vectors_NxD.dtype, vectors_NxD.astype(jnp.float32)
    weight_Ex1 = graph["weight_E"][:, None]

    # Two layers at once: with no user vectors in layer 0, items have vectors in even
    # layers only and users in odd ones.
    def two_layers(x_NxD: Array) -> Array:
        sent_ExD = x_NxD[item_E] * weight_Ex1
        users_VxD = jax.ops.segment_sum(
            sent_ExD, user_E, len(graph["user_V"]), indices_are_sorted=True
        )
        sent_ExD = users_VxD[user_E] * weight_Ex1
        return jax.ops.segment_sum(sent_ExD, item_E, len(vectors_NxD))

    even = [vectors_NxD]
    for _ in range(layers // 2):
        even.append(two_layers(even[-1]))
    items_NxD = sum(even[1:], start=even[0]) / (layers + 1)
    # A user's layer k + 1 is the convolution of the items' layer k. It is linear, so
    # the average over layers is taken here and the user tower does the last step.
    before_users = even[: (layers + 1) // 2]
    history_NxD = sum(before_users[1:], start=before_users[0]) / (layers + 1)
    history_NxD = history_NxD * graph["root_N"][:, None]
    return items_NxD.astype(dtype), history_NxD.astype(dtype)
