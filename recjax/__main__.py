"""Prints the programs and configs of the package: `python -m recjax`.

With a command it does the same as the console script: `python -m recjax recommend`.
"""

import sys

from recjax import __version__
from recjax.config.load import example_names

EXAMPLES = example_names()
NAMES = ", ".join(EXAMPLES)
TEXT = f"""\
recjax {__version__}: personalised recommendation with pretrained language models

  python -m recjax.main --config={EXAMPLES[0]} --workdir=DIR    train and evaluate
  python -m recjax.main --config=DIR/config.json ...          run a saved config again
  python -m recjax.main --config=refit:DIR ...                train on all events
  python -m recjax.main --help                                flags and config sections
  python -m recjax.main --help_config                         every config key
  python -m recjax.reporting.compare DIR DIR                  compare finished runs
  python -m recjax.recommend --model=DIR --users=all --out=lists.csv
                                                              lists of a trained model
  python -m recjax.serve --model=DIR                          a live service, and a page
  python -m recjax.feedback --model=DIR --events=FILE         learn from its events
  python -m recjax.similar, recjax.embed, recjax.export       see --help

The console script recjax has all of them: recjax train, recjax recommend, ...

Configs in the package: {NAMES}. Your own config is a Python file, see --help.
A clone of the repository also has ablations (python -m experiments.sweep --help,
experiments.collect), hyperparameter search (experiments.search) and the documentation
(README.md)."""

if __name__ == "__main__":
    if len(sys.argv) > 1:
        from recjax.cli import main

        main()
    print(TEXT)
