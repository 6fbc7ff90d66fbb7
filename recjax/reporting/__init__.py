"""Console, TensorBoard, result pages and comparisons."""
