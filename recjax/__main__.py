"""Prints the programs and configs of the package: `python -m recjax`."""

from recjax import __version__
from recjax.config.load import example_names

TEXT = """\
recjax {version}: personalised recommendation with pretrained language models

  python -m recjax.main --config={example} --workdir=DIR    train and evaluate
  python -m recjax.main --config=DIR/config.json ...          run a saved config again
  python -m recjax.main --help                                flags and config sections
  python -m recjax.main --help_config                         every config key
  python -m recjax.reporting.compare DIR DIR                  compare finished runs

Configs in the package: {examples}. Your own config is a Python file, see --help.
Documentation: README.md of the repository, and `help(recjax.config)` in Python.
"""


def main() -> None:
    """Prints the overview."""
    examples = example_names()
    print(
        TEXT.format(
            version=__version__, example=examples[0], examples=", ".join(examples)
        ),
        end="",
    )


if __name__ == "__main__":
    main()
