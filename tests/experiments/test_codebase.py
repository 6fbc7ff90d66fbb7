"""The metrics of a tiny package whose values are counted by hand."""

import pytest

from experiments.codebase import main, measure

pytestmark = pytest.mark.unit

LOOP = '''\
"""The loop of a phase."""

from typing import TYPE_CHECKING, Any

from recjax import optim
from recjax.a import make_loss
from recjax.steps import train_step

if TYPE_CHECKING:
    from recjax.entry import Entry


def fit(config: Any, entry: "Entry", *rest: Any) -> None:  # noqa: E501
    report = optim.make(config)  # hides the function below
    loss = make_loss(report)

    def inner():
        from recjax.late import Late

        train_step(Late, loss)

    inner()


def report():
    from recjax.a.lonely import Lonely
    return Lonely
'''
STEPS = """\
import recjax.b.c as deep


class Base:
    def apply(self, batch: deep.Batch):
        return batch  # type: ignore  # see issue #1


def train_step(state: dict[str, object], loss: Base):
    return loss.apply(state)
"""
LONELY = """\
# Imports nothing.
class Lonely:
    def a(self): ...
    def b(self): ...
    async def c(self): ...
"""
FAR = """\
def far(x: list[Any]):
    from recjax.a import losses
"""
OPTIM = "RATE = 0.1\n\n\ndef make(config: dict):\n    return config | RATE\n"
FILES = {
    "__init__.py": "",
    "entry.py": "import recjax.loop\n",
    "loop.py": LOOP,
    "steps.py": STEPS,
    "optim.py": OPTIM,
    "late.py": "class Late:\n    pass  # type: ignore\n",
    "a/__init__.py": "from .inner import make_loss\n",
    "a/inner.py": "from recjax.a.losses import make as make_loss\n",
    "a/losses.py": "import recjax.b.c\n\nmake = lambda x: recjax.b.c.Batch(x)\n",
    "a/lonely.py": LONELY,
    "b/__init__.py": "",
    "b/c.py": "from recjax.far import far\n\n\nclass Batch:\n    size = far\n",
    "far.py": FAR + "    x += losses\n" * 79,
}
LINES = sum(text.count("\n") for text in FILES.values())


def write(repo, files):
    for name, text in files.items():
        path = repo / "recjax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return repo


@pytest.fixture
def repo(tmp_path):
    return write(tmp_path / "old", FILES)


def test_metrics(repo):
    assert measure(repo).metrics == {
        "files": "13",
        "lines": f"{LINES}",
        "longest file, lines": "81 (`recjax/far.py`)",
        "lines with a comment": f"{3 / LINES:.1%}",  # in loop, steps and a/lonely
        "packages": "9",  # seven files, a and b
        # entry to loop; loop to optim, a, steps, late; steps to b; a to b; b to far;
        # far to a
        "imports between packages": "9",
        "layers of packages": "4",  # entry, loop, steps, the cycle
        "package cycles": "1",
        "longest import chain, files": "5",
        "files opened for one training step": "6",
        # a, b and c 1, apply, train_step and make 2, report 3, inner 4, fit 10, far 81
        "function length, median": "2",
        "function length, p90": "10",
        "function length, maximum": "81",
        "functions over 80 lines": "1",
        # of config, entry, rest, batch, state, loss, config of make, x
        "parameters annotated `Any`": "2 (25.0%)",
    }


def test_chain_has_a_cycle_as_one_node(repo):
    assert measure(repo).chain == [
        ("recjax/entry.py",),
        ("recjax/loop.py",),
        ("recjax/a/__init__.py",),
        ("recjax/a/inner.py",),
        ("recjax/a/losses.py", "recjax/b/c.py", "recjax/far.py"),
    ]
    assert measure(repo).cycles == [("recjax/a", "recjax/b", "recjax/far.py")]


def test_step_files_are_two_mentions_away(repo):
    """Not files that only re-export, a hidden function's, or far.py, three away."""
    report = measure(repo)
    assert report.starts == ["recjax/loop.py: fit", "recjax/steps.py: train_step"]
    assert report.step_files == [
        "recjax/a/losses.py",
        "recjax/b/c.py",
        "recjax/late.py",
        "recjax/loop.py",
        "recjax/optim.py",
        "recjax/steps.py",
    ]


def test_a_long_function_has_more_than_80_lines(repo):
    (repo / "recjax/far.py").write_text(FAR + "    x += losses\n" * 78)
    metrics = measure(repo).metrics
    assert metrics["function length, maximum"] == "80"
    assert metrics["functions over 80 lines"] == "0"


def test_names_that_files_import_from_each_other(repo):
    """A name that is defined nowhere ends the search instead of repeating it."""
    write(repo, {"optim.py": "from recjax.late import make\n"})
    write(repo, {"late.py": "from recjax.optim import make\n"})
    assert "recjax/optim.py" not in measure(repo).step_files


def test_other_layout(repo, tmp_path):
    """Packages change the graph of packages, but not what a step mentions."""
    moved = {
        {"loop.py": "b/loop.py", "steps.py": "b/steps.py"}.get(name, name): text
        for name, text in FILES.items()
    }
    moved = {
        name: text.replace("recjax.loop", "recjax.b.loop").replace(
            "recjax.steps", "recjax.b.steps"
        )
        for name, text in moved.items()
    }
    metrics = measure(write(tmp_path / "new", moved)).metrics
    changed = {"packages": "7", "imports between packages": "7"}
    # Entry, the cycle, and below it late or optim.
    changed["layers of packages"] = "3"
    assert metrics == measure(repo).metrics | changed


def test_table_of_two_checkouts(repo, tmp_path, capsys):
    new = write(tmp_path / "new", {**FILES, "far.py": FAR})
    main(["--repo", str(repo), str(new)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"| metric | {repo} | {new} |",
        "|---|---:|---:|",
        "| files | 13 | 13 |",
    ]
    assert "| function length, maximum | 81 | 10 |" in lines
    start = lines.index(f"{repo}, package cycles:")
    assert lines[start + 2] == "1. recjax/a, recjax/b, recjax/far.py"


@pytest.mark.parametrize("text", [None, "def f(:\n"])
def test_no_checkout_or_broken_source(text, tmp_path, capsys):
    write(tmp_path, {} if text is None else {"a.py": text})
    with pytest.raises(SystemExit) as e:
        main(["--repo", str(tmp_path)])
    assert e.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert ("no .py files" if text is None else "recjax/a.py, line 1: ") in message
