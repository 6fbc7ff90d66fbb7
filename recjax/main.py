"""Trains and evaluates a recommender.

    python -m recjax.main --config=quickstart --workdir=runs/quickstart

--config is FILE.py with a function get_config(), the name of a config in the package,
the config.json of a run, or refit:RUN, which trains a finished run's model on all
events. Every key of the config can be set by a flag: --config.train.batch_size=32.
--help_config prints every key.
"""

import re
import sys
import threading
from collections.abc import Sequence
from logging import CRITICAL, getLogger
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from recjax.common.errors import STOPPED, Stopped, UserError
from recjax.common.text import visible
from recjax.config.keys import SECTIONS
from recjax.config.load import check_key, config_path, explain
from recjax.runtime.console import (
    INTERRUPTED,
    exit_on_interrupt,
    exit_soon,
    keep_console,
)
from recjax.runtime.host_memory import keep_memory, restart_with_settings


def _fail(message: str, details: Sequence[str] = ()) -> NoReturn:
    print(f"error: {visible(message)}", file=sys.stderr)
    for line in details:
        print(f"  {line}", file=sys.stderr)
    exit_soon(2)


def _define_config() -> Any:
    try:
        return config_flags.DEFINE_config_file(
            "config",
            None,
            "FILE.py, FILE.py:ARG (passes ARG to get_config), RUN/config.json, or a "
            "name.",
        )
    except flags.Error as e:  # the library reads --flagfile here already
        _fail(f"--flagfile: {explain(e)[-1]}")


_CONFIG = _define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory. The same command again resumes the run."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check data, weights and disk; estimate time and memory."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes of one run."
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes of the run.")
_PROCESS = flags.DEFINE_integer("process", 0, "Index of this process, from 0.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show a traceback for user errors too.")
flags.DEFINE_string(
    "help_config", None, "Print every config key, or with =SECTION those of a section."
)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags with absl; a mistake is one line instead of a traceback."""
    keep_console()
    _print_help(argv)
    try:
        argv = _with_config_path(argv)
        rest = flags.FLAGS(argv)
        _ = _CONFIG.value and _CONFIG.value.seed  # an unreadable file raises only now
    except SystemExit as e:
        if any(re.match(r"--?(help|\?)", arg) for arg in argv):
            sys.exit(0)  # absl exits with 1
        configs = [arg for arg in argv if re.match(r"--?config(=|$)", arg)]
        _fail(f"config: {' '.join(configs)}: exits with {e.code}")
    except UserError as e:
        _fail(str(e))
    except OSError as e:
        _fail(f"config: {explain(e)[-1]}")
    except IndexError:  # --config.train.phases[5]
        beyond = [arg for arg in argv if re.match(r"--?config\.[^=]*\[", arg)]
        _fail(f"config: no such element: {' '.join(beyond)}")
    except Exception as e:  # a config file may raise anything
        if "--debug" in argv:
            raise
        _check_keys(argv)  # not before, as a config file may add keys of its own
        message = " ".join(explain(e))
        _fail(message if isinstance(e, flags.Error) else f"config: {message}")
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; options begin with --")
    return rest


def _print_help(argv: list[str]) -> None:
    """Exits after printing the help, if a flag requests it."""
    for arg in argv[1:]:
        if re.fullmatch(r"--?(help|h|\?)", arg):
            sections = ", ".join(name for name in SECTIONS if name)
            print(f"{__doc__}\nSections of the config: {sections}.")
            print("--help_config=SECTION, or =KEY, prints those of one.\n\nFlags:")
            print(flags.FLAGS.module_help(sys.modules[__name__]))
            sys.exit(0)
        if found := re.fullmatch(r"--?help_config(?:=(.*))?", arg):
            from recjax.config.help import describe_keys  # imports JAX for choices

            try:
                print(describe_keys(found[1] or ""))
            except UserError as e:
                _fail(str(e))
            sys.exit(0)


def _check_keys(argv: list[str]) -> None:
    """Fails at a flag for an unknown key; names its new name, or the closest key."""
    for arg in argv:
        if found := re.match(r"--?(?:no)?config\.([^=]+)", arg):
            try:
                check_key(found[1])
            except UserError as e:
                _fail(str(e))


def _with_config_path(argv: list[str]) -> list[str]:
    """Replaces the name of a packaged config, or a JSON file, by a Python file."""
    argv = list(argv)
    for i, arg in enumerate(argv):
        if found := re.fullmatch(r"(--?config=)(.+)", arg):
            argv[i] = found[1] + config_path(found[2])
        elif re.fullmatch("--?config", arg) and i + 1 < len(argv):
            argv[i + 1] = config_path(argv[i + 1])
    return argv


def _configure_logging(debug: bool) -> None:
    logging.set_verbosity(logging.WARNING)
    if not debug:
        # Errors of Orbax, which logs as absl, reach the user through `UserError`, or as
        # a line about a checkpoint that could not be saved or read.
        logging.get_absl_logger().addFilter(lambda log: "orbax" not in log.pathname)
        # JAX logs lost connections of several processes, which recjax reports too.
        getLogger("jax._src.distributed").setLevel(CRITICAL)
        # Errors of background saves are reported by the checkpoint code. TensorStore
        # also raises them in threads of its own, after the event loop of a failed save
        # is closed.
        threading.excepthook = lambda failure: None
        sys.unraisablehook = lambda failure: None


def main(argv: Any) -> None:
    """Runs the config in the run directory."""
    del argv
    _configure_logging(_DEBUG.value)
    if _CONFIG.value is None and flags.FLAGS["config"].present:
        _fail("config: its get_config() returns None")
    if _CONFIG.value is None or not _WORKDIR.value:
        _fail("--config=CONFIG and --workdir=DIR are required; see --help")
    keep_memory()  # before the libraries create threads
    try:
        # Imported after the flags are parsed, so that --help does not wait for JAX.
        with exit_on_interrupt():
            import recjax.run.dry_run
            import recjax.run.train
            from recjax.runtime.mesh import check_devices
        if _COORDINATOR.value or _PROCESSES.value != 1:
            from recjax.runtime.processes import initialize_distributed

            initialize_distributed(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        check_devices()
        if _DRY_RUN.value:
            recjax.run.dry_run.dry_run(_CONFIG.value, _WORKDIR.value)
        else:
            recjax.run.train.run(_CONFIG.value, _WORKDIR.value)
    except Stopped as e:
        where = "" if e.saved else " from the last save, the newest state was NOT SAVED"
        print(f"stopped: the same command resumes{where}", file=sys.stderr)
        exit_soon(STOPPED)
    except KeyboardInterrupt:  # before there is anything to save
        print("interrupted", file=sys.stderr)
        exit_soon(INTERRUPTED)
    except UserError as e:
        if _DEBUG.value:
            raise
        _fail(str(e), e.details)
    except OSError as e:  # permissions or a full disk, which a traceback cannot explain
        if _DEBUG.value or not e.strerror:
            raise
        _fail(f"{e.filename or 'files'}: {e.strerror}")
    except MemoryError as e:
        if _DEBUG.value:
            raise
        _fail(
            f"memory: {str(e) or 'not enough for this run'}; try a smaller "
            "train.batch_size, eval.batch_size or data.history_length"
        )
    exit_soon(0)


if __name__ == "__main__":
    restart_with_settings()
    app.run(main, flags_parser=parse_flags)
