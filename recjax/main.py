"""Trains and evaluates a recommender.

python -m recjax.main --config=configs/quickstart.py --workdir=runs/quickstart

Any key of the config can be set: --config.train.batch_size=32 (configs/base.py has
them all).
"""

import io
import re
import sys
import threading
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from recjax.common.errors import STOPPED, Stopped, UserError, explain
from recjax.runtime.host_memory import keep_memory

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; FILE.py:ARG passes ARG to get_config."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory. The same command again resumes the run."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check data, weights, memory and disk; train nothing."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes of one run."
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "How many processes the run has.")
_PROCESS = flags.DEFINE_integer("process", 0, "Which of them this one is, from 0.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show a traceback for user errors too.")


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with config mistakes as one line instead of a traceback."""
    try:
        rest = flags.FLAGS(argv)
        _ = _CONFIG.value and _CONFIG.value.seed  # an unreadable file raises only now
    except SystemExit as e:
        if any(re.match(r"--?(help|\?)", arg) for arg in argv):
            sys.exit(0)  # absl exits with 1
        named = [arg for arg in argv if re.match(r"--?config(=|$)", arg)]
        _fail(f"config: {' '.join(named)}: exits with {e.code}")
    except OSError as e:
        _fail(f"config: {explain(e)[-1]}")
    except IndexError:  # --config.train.phases[5]
        beyond = [arg for arg in argv if re.match(r"--?config\.[^=]*\[", arg)]
        _fail(f"config: no such part: {' '.join(beyond)}")
    except Exception as e:  # a config file may raise anything
        if "--debug" in argv:
            raise
        _fail(f"config: {' '.join(explain(e))}")
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; options begin with --")
    return rest


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main(argv: Any) -> None:
    """Runs the config in the run directory."""
    del argv
    # Orbax and jax tell much, with tracebacks of what is then said in one line.
    logging.set_verbosity(logging.WARNING if _DEBUG.value else logging.FATAL)
    if _CONFIG.value is None and flags.FLAGS["config"].present:
        _fail("config: its get_config() returns None")
    if _CONFIG.value is None or not _WORKDIR.value:
        _fail("--config=FILE.py and --workdir=DIR are required; see --help")
    if not _DEBUG.value:  # who waits for a save says why it failed
        threading.excepthook = lambda failure: None
    if isinstance(sys.stdout, io.TextIOWrapper):  # titles in any language
        sys.stdout.reconfigure(errors="replace")
    keep_memory()  # before the libraries make threads
    try:
        # After the flags: --help need not wait for jax.
        if _COORDINATOR.value or _PROCESSES.value > 1:
            from recjax.runtime.processes import initialize_distributed

            initialize_distributed(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        if _DRY_RUN.value:
            from recjax.run.dry_run import dry_run

            dry_run(_CONFIG.value, _WORKDIR.value)
        else:
            from recjax.run.train import run

            run(_CONFIG.value, _WORKDIR.value)
    except Stopped as e:
        how = "" if e.saved else " from the last save, the newest state was NOT SAVED"
        print(f"stopped: the same command resumes{how}", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:  # before there is anything to save
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as e:
        if _DEBUG.value:
            raise
        _fail(str(e))
    except OSError as e:  # permissions, a full disk: nothing that a trace would explain
        if _DEBUG.value or not e.strerror:
            raise
        _fail(f"{e.filename or 'files'}: {e.strerror}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
