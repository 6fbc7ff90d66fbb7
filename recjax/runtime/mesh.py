"""Device mesh, and where each array lies on it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, Rules, match_rules


def make_mesh(config: Any) -> Mesh:
    """Makes a (data, model) mesh.

    Args:
      config: `config.mesh`; -1 in `data` means all devices that `model` leaves.

    Raises:
      UserError: it needs more devices than there are, or none.
    """
    data, model = config.data, config.model
    if data < 1 and data != -1:
        raise UserError(f"mesh.data: {data} is neither at least 1 nor -1")
    available = jax.device_count()
    if data == -1:
        data = max(available // model, 1)
    if data * model > available:
        raise UserError(
            f"mesh: ({data}, {model}) needs {data * model} devices, there are "
            f"{available}"
        )
    if jax.process_count() > 1 and data * model != available:
        raise UserError(
            f"mesh.data: {data} is not {available}, the devices of all processes; or -1"
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
    """Maps the path of every parameter to its sharding.

    Args:
      flat: parameters, or their shapes.
      mesh: of the run.
      rules: `(regex, mesh axis of each dimension)`. A dimension whose size is not a
        multiple of its mesh axis is replicated.

    Raises:
      UserError: a parameter without a rule, or an axis that the mesh does not have.
    """
    specs = match_rules(rules, flat, "mesh.rules")
    for _, axes in rules:
        for axis in axes or ():
            if axis is not None and axis not in mesh.axis_names:
                known = ", ".join(mesh.axis_names)
                raise UserError(f"mesh.rules: {axis!r} is not one of {known}")

    def sharding_for(path: str, x: Any) -> NamedSharding:
        axes = tuple(specs[path] or ())[: len(x.shape)]
        kept = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, x.shape, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*kept))

    return {path: sharding_for(path, x) for path, x in flat.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has a copy of."""
    return NamedSharding(mesh, PartitionSpec())


def row_multiple(mesh: Mesh) -> int:
    """The number that a batch is padded to a multiple of: of the data axis, and of 8.

    Dropout bits depend on the shape they are drawn for. With 8, a mesh whose data
    axis divides 8 computes what one device computes.
    """
    return math.lcm(mesh.shape["data"], 8)


def place(tree: Any, shardings: Any) -> Any:
    """Places host arrays, which are the same in every process, on the devices.

    Args:
      tree: pytree of arrays.
      shardings: one sharding for all of them, or a pytree with one for each.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    # device_put would compare the arrays of all processes; each one rather slices
    # the parts of its own devices.
    def place_array(x: Any, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = place_array(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data)
        full = np.asarray(x)
        return jax.make_array_from_callback(
            full.shape, sharding, lambda index: full[index]
        )

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: place_array(x, shardings), tree)
    return jax.tree.map(place_array, tree, shardings)


def batch_sharding(mesh: Mesh, tree: Any) -> Any:
    """Shards first dimensions over the data axis where it divides them.

    Returns:
      A pytree of shardings; an array that the axis does not divide is replicated.
    """

    def sharding_for(x: Any) -> NamedSharding:
        divides = len(x.shape) > 0 and x.shape[0] % mesh.shape["data"] == 0
        return NamedSharding(mesh, PartitionSpec("data" if divides else None))

    return jax.tree.map(sharding_for, tree)
