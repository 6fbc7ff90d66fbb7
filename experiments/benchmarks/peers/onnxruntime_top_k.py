"""Exact search of the best inner products by ONNX Runtime, see `top_k`."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from experiments.benchmarks.serve import serve

K, SEARCHES = 100, 20


def main(folder: Path) -> None:
    """Measures on demand."""
    vectors, queries = (np.load(folder / f"{x}.npy") for x in ("vectors", "queries"))
    columns = np.ascontiguousarray(vectors.T)
    # The columns are an input that stays in place, because a file is below 2 GiB.
    nodes = [
        helper.make_node("MatMul", ["q", "x"], ["s"]),
        helper.make_node("TopK", ["s", "k"], ["best", "items"]),
    ]
    found = (len(queries), K)
    tensors = {"q": queries.shape, "x": columns.shape, "best": found}
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in tensors.items()
    }
    items = helper.make_tensor_value_info("items", TensorProto.INT64, found)
    k = helper.make_tensor("k", TensorProto.INT64, [1], [K])
    graph = helper.make_graph(
        nodes, "search", [infos["q"], infos["x"]], [infos["best"], items], [k]
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    binding = session.io_binding()
    binding.bind_cpu_input("x", columns)
    binding.bind_output("best")
    binding.bind_output("items")

    def search() -> dict[str, Any]:
        start = time.perf_counter()
        for _ in range(SEARCHES):
            binding.bind_cpu_input("q", queries)
            session.run_with_iobinding(binding)
            binding.copy_outputs_to_cpu()
        return {"seconds": (time.perf_counter() - start) / SEARCHES}

    search()
    serve({}, search)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
