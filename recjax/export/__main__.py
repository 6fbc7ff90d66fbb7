"""Exports a trained model for programs without recjax.

    python -m recjax.export --model=runs/shop --to=stablehlo --out=exported
    python -m recjax.export --model=runs/shop --to=onnx --batch=1 --out=exported
    python -m recjax.export --model=runs/shop --to=sentence-transformers --out=encoder

stablehlo: user tower and item tower with a symbolic batch, for CPUs and CUDA GPUs;
onnx: the same, with a fixed batch of items; sentence-transformers: the fine-tuned text
encoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recjax.command import make_parser, run_command
from recjax.common.errors import UserError
from recjax.common.files import user_path
from recjax.runtime.host_memory import restart_with_settings
from recjax.runtime.locks import check_directory, directory_lock

KINDS = ("stablehlo", "onnx", "sentence-transformers")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and exports."""
    parser = make_parser("export", __doc__)
    parser.add_argument("--to", required=True, choices=KINDS, help="format")
    parser.add_argument("--out", required=True, help="directory for the files")
    parser.add_argument(
        "--batch", type=int, default=1, help="items of an ONNX call (1)"
    )
    run_command(parser, export, argv)


def export(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: a model that cannot be exported so, or a library that is missing.
    """
    folder = user_path(options.out, "--out")
    if options.batch < 1:
        raise UserError(f"--batch: {options.batch} is not at least 1")
    import recjax

    kind = f"export to {options.to}"  # one directory does not hold two of them
    check_directory(folder, kind, "--out")
    parts = recjax.load(options.model).parts
    with directory_lock(folder, kind, "--out"):
        written = _write(parts, folder, options)
    for path in written:
        print(path)


def _write(parts: Any, folder: Path, options: Any) -> list[Path]:
    from recjax.export import onnx, sentence_transformers, stablehlo

    if options.to == "stablehlo":
        return stablehlo.export_towers(parts, folder)
    if options.to == "onnx":
        return onnx.export_towers(parts, folder, options.batch)
    return sentence_transformers.export_encoder(parts, folder)


if __name__ == "__main__":
    restart_with_settings()
    main()
