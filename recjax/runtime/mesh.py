"""The device mesh, and the placement of arrays on it."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recjax.common.errors import UserError, first_line
from recjax.common.param_paths import FlatParams, Rules, match_rules


def check_devices() -> None:
    """Checks that JAX finds a device.

    Raises:
      UserError: it does not; names the setting that may be the cause.
    """
    try:
        jax.devices()
    except Exception as e:  # RuntimeError, or a bare AssertionError for CUDA
        problem = first_line(e)[:200]
        named = os.environ.get("JAX_PLATFORMS")
        if named:
            raise UserError(
                f"JAX_PLATFORMS={named}: JAX finds no such device ({problem}); unset "
                "it, or install JAX for this device"
            ) from None
        raise UserError(
            f"JAX finds no device ({problem}); install JAX again, or set "
            "JAX_PLATFORMS=cpu"
        ) from None


def make_mesh(config: Any) -> Mesh:
    """Makes a (data, model) mesh from `config.mesh`.

    Raises:
      UserError: the number of devices is invalid, or larger than that of the machine.
    """
    data, model = config.data, config.model
    if data < 1 and data != -1:
        raise UserError(f"mesh.data: {data} is neither at least 1 nor -1")
    available = jax.device_count()
    if data == -1:  # all devices that `model` leaves
        data = max(available // model, 1)
    if data * model > available:
        needs = f"({data}, {model}) needs {data * model} devices"
        raise UserError(f"mesh: {needs}, there are {available}; set fewer")
    if jax.process_count() > 1 and data * model != available:
        raise UserError(
            f"mesh.data: {data}, but all processes have {available} devices; set -1"
        )
    types = (AxisType.Auto, AxisType.Auto)
    devices = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), types, devices=devices)


def param_shardings(
    flat: FlatParams, mesh: Mesh, rules: Rules
) -> dict[str, NamedSharding]:
    """Maps the path of every parameter to its sharding.

    A rule is `(regex, mesh axis of each dimension)`. A dimension whose size is not a
    multiple of its mesh axis is replicated.

    Raises:
      UserError: a parameter without a rule, or axes that do not fit the mesh.
    """
    specs = match_rules(rules, flat, "mesh.rules")
    for _, axes in rules:
        if axes is not None and not isinstance(axes, tuple | list):
            raise UserError(f"mesh.rules: {axes!r} is not a tuple of mesh axes")
        named = [axis for axis in axes or () if axis is not None]
        for axis in named:
            if axis not in mesh.axis_names:
                known = ", ".join(mesh.axis_names)
                raise UserError(f"mesh.rules: {axis!r} is not one of {known}")
            if named.count(axis) > 1:
                raise UserError(f"mesh.rules: {axis!r} appears twice in {axes}")

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
    """Returns a number; batches are padded to a multiple of it."""
    # Dropout bits depend on the shape they are drawn for. With 8, a mesh whose data
    # axis divides 8 computes what one device computes.
    return math.lcm(mesh.shape["data"], 8)


def place(tree: Any, shardings: Any) -> Any:
    """Places a pytree of host arrays, the same in every process, on the devices.

    `shardings` is one for all of them, or a pytree with one for each.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    # device_put would compare the arrays of all processes. Instead, each process slices
    # the parts of its own devices.
    def place_array(x: Any, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = place_array(jax.random.key_data(x), sharding)
            return jax.random.wrap_key_data(data)
        full = np.asarray(x)
        return jax.make_array_from_callback(full.shape, sharding, full.__getitem__)

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: place_array(x, shardings), tree)
    return jax.tree.map(place_array, tree, shardings)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the arrays of a pytree to every device."""
    return place(tree, replicated(mesh))


def shard_batch(tree: Any, mesh: Mesh) -> Any:
    """Shards first dimensions over the data axis, unless it does not divide them."""

    def sharding_for(x: Any) -> NamedSharding:
        divides = len(x.shape) > 0 and x.shape[0] % mesh.shape["data"] == 0
        return NamedSharding(mesh, PartitionSpec("data" if divides else None))

    return place(tree, jax.tree.map(sharding_for, tree))
