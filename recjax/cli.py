"""The console script `recjax`: one word per command.

recjax train --config=quickstart --workdir=runs/quickstart
recjax recommend --model=runs/quickstart --users=all --out=lists.csv
recjax COMMAND --help
"""

import importlib
import sys

from recjax.runtime.host_memory import restart_with_settings

COMMANDS = {
    "train": "recjax.main",
    "recommend": "recjax.recommend",
    "similar": "recjax.similar",
    "embed": "recjax.embed",
    "serve": "recjax.serve",
    "feedback": "recjax.feedback.__main__",
    "export": "recjax.export.__main__",
}


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(f"{__doc__}\nCommands: {', '.join(COMMANDS)}.")
        sys.exit(0)
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: no command {name!r}; there are {known}", file=sys.stderr)
        sys.exit(2)
    restart_with_settings()
    del sys.argv[1]
    module = importlib.import_module(COMMANDS[name])
    if name == "train":
        from absl import app

        app.run(module.main, flags_parser=module.parse_flags)
    module.main()
