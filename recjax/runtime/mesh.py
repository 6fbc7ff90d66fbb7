"""Device mesh, and ordered regex rules -> where each array lies."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, Rules, match_rules


def make_mesh(config: Any) -> Mesh:
    """A (data, model) mesh; -1 in `mesh.data` means all devices that are left.

    Raises:
      UserError: more devices asked for than there are, or none.
    """
    data, model = config.data, config.model
    if data < 1 and data != -1:
        raise UserError(f"mesh.data: {data} is neither at least 1 nor -1")
    have = jax.device_count()
    if data == -1:
        data = max(have // model, 1)
    if data * model > have:
        raise UserError(
            f"mesh: ({data}, {model}) needs {data * model} devices, there are {have}"
        )
    if jax.process_count() > 1 and data * model != have:
        raise UserError(
            f"mesh.data: {data} is not {have}, the devices of all processes; or -1"
        )
    return jax.make_mesh(
        (data, model),
        ("data", "model"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[: data * model],
    )


def param_shardings(
    flat: FlatParams, mesh: Mesh, rules: Rules
) -> dict[str, NamedSharding]:
    """Path -> NamedSharding by `(regex, axis per dimension)`.

    A dimension that its mesh axis does not divide stays whole.

    Raises:
      UserError: a parameter without a rule, or an axis that the mesh does not have.
    """
    specs = match_rules(rules, flat, "mesh.rules")
    for _, axes in rules:
        for axis in axes or ():
            if axis is not None and axis not in mesh.axis_names:
                known = ", ".join(mesh.axis_names)
                raise UserError(f"mesh.rules: {axis!r} is not one of {known}")

    def place(path: str, x: Any) -> NamedSharding:
        axes = tuple(specs[path] or ())[: len(x.shape)]
        kept = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, x.shape, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*kept))

    return {path: place(path, x) for path, x in flat.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_multiple(mesh: Mesh) -> int:
    """What a batch's rows are filled up to: a multiple of the data axis, and of 8.

    Dropout bits depend on the shape they are drawn for. With 8, a mesh whose data
    axis divides it computes what one device computes.
    """
    return math.lcm(mesh.shape["data"], 8)


def place(tree: Any, shardings: Any) -> Any:
    """Places arrays of the host, the same in every process, on the devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def place(x: Any, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data)
        whole = np.asarray(x)
        return jax.make_array_from_callback(
            whole.shape, sharding, lambda part: whole[part]
        )

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: place(x, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def batch_sharding(mesh: Mesh, tree: Any) -> Any:
    """First dimension over the data axis where it divides, else replicated."""

    def place(x: Any) -> NamedSharding:
        divides = len(x.shape) > 0 and x.shape[0] % mesh.shape["data"] == 0
        return NamedSharding(mesh, PartitionSpec("data" if divides else None))

    return jax.tree.map(place, tree)
