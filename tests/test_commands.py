"""The commands of a trained model: files in and out, interruptions, mistakes."""

import errno
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import recjax
from recjax import cli, command, embed, recommend, similar
from recjax.export import __main__ as export
from recjax.inference import batches
from recjax.inference.model import Model

PROGRAMS = {
    "recommend": recommend,
    "similar": similar,
    "embed": embed,
    "export": export,
}


@pytest.fixture
def run(finished, capsys, monkeypatch):
    """Runs a command; returns exit code, output and errors."""
    monkeypatch.setattr(command, "exit_soon", sys.exit)  # which would end this process
    monkeypatch.setattr(command, "keep_console", lambda **_: None)
    monkeypatch.setattr(command, "keep_memory", lambda: None)

    def call(name, *options, model=finished):
        with pytest.raises(SystemExit) as e:
            PROGRAMS[name].main([f"--model={model}", *map(str, options)])
        return (e.value.code, *capsys.readouterr())

    return call


def read(path):
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    return pl.read_csv(path, schema_overrides={"user": pl.String, "item": pl.String})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lists_for_all_users(run, model, tmp_path, suffix):
    out = tmp_path / "new" / f"lists{suffix}"
    code, output, _ = run("recommend", "--users=all", "--k=3", f"--out={out}")
    assert code == 0
    assert f"lists of {len(model.users)} users: {out}" in output
    want = model.recommend(users="all", k=3)
    found = read(out)
    assert found.columns == want.columns
    assert found["item"].to_list() == want["item"].to_list()
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_an_interrupted_command_goes_on(run, model, tmp_path, monkeypatch):
    """Finished parts are not made again, unless the options have changed."""
    monkeypatch.setattr(recommend, "CHUNK", 10)
    out, calls, recommend_users = tmp_path / "lists.csv", [], Model.recommend

    def interrupted(self, users=None, **settings):
        if users is None or "k" not in settings or settings["k"] == 10:
            return recommend_users(self, users=users, **settings)  # golden lists
        calls.append(len(users))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return recommend_users(self, users=users, **settings)

    monkeypatch.setattr(Model, "recommend", interrupted)
    options = ("--users=all", f"--out={out}")
    assert run("recommend", *options, "--k=3")[0] == 130
    assert not out.exists()
    assert run("recommend", *options, "--k=3")[0] == 0
    assert len(calls) == 5  # of 40 users: two parts, an interruption, two parts
    assert read(out)["user"].unique(maintain_order=True).to_list() == model.users
    calls.clear()
    assert (
        run("recommend", *options, "--k=3")[0] == 130
    )  # nothing is left to go on from
    assert run("recommend", *options, "--k=4")[0] == 0
    assert len(calls) == 3 + 4


def test_lists_for_the_users_of_a_file(run, model, tmp_path):
    """A column of users; with a column of items, these are the histories."""
    users, out = tmp_path / "users.csv", tmp_path / "lists.parquet"
    some = model.users[3:5]
    users.write_text("user_id\n" + "\n".join(some) + "\n")
    assert run("recommend", f"--users={users}", f"--out={out}")[0] == 0
    want = model.recommend(users=some)
    assert read(out)["item"].to_list() == want["item"].to_list()
    users.write_text("user_id,item_id,timestamp\na,i1,2\na,i2,1\nb,i9,1\n")
    assert run("recommend", f"--users={users}", f"--out={out}")[0] == 0
    want = model.recommend(histories=[["i2", "i1"], ["i9"]])
    assert read(out)["item"].to_list() == want["item"].to_list()
    assert read(out)["user"].unique(maintain_order=True).to_list() == ["a", "b"]


def test_a_history_on_the_command_line(run, model):
    code, output, _ = run("recommend", "--history=i1 i2", "--k=3")
    assert code == 0
    want = model.recommend(histories=[["i1", "i2"]], k=3)
    lines = output.splitlines()[1:]
    assert [line.split()[2] for line in lines] == want["item"].to_list()


def test_new_items_are_recommended_and_embedded(run, model, tmp_path):
    items, out = tmp_path / "new.csv", tmp_path / "out.parquet"
    items.write_text("item_id,title,genre\nn1,one two,drama\nn2,one three,action\n")
    options = ("--history=i1", f"--items={items}", f"--among={items}", f"--out={out}")
    assert run("recommend", *options)[0] == 0
    assert sorted(read(out)["item"]) == ["n1", "n2"]
    assert run("embed", f"--items={items}", f"--out={out}")[0] == 0
    found = read(out)
    assert found["id"].to_list() == ["n1", "n2"]
    want = model.encode_items(["one two drama", "one three action"])
    assert found["vector"].to_numpy() == pytest.approx(want, abs=1e-5)
    assert run("embed", f"--out={out}")[0] == 0
    assert len(read(out)) == len(model.items)


def test_similar_items(run, model, tmp_path):
    out = tmp_path / "similar.csv"
    assert run("similar", "--items=i3 i4", "--k=2", f"--out={out}")[0] == 0
    want = model.similar(["i3", "i4"], k=2)
    assert read(out)["neighbour"].to_list() == want["neighbour"].to_list()
    code, output, _ = run("similar", "--text=one two", "--k=2")
    assert code == 0
    assert len(output.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "recommend",
            ["--users=all", "--out=lists.xlsx"],
            "--out: lists.xlsx: the name",
        ),
        ("recommend", ["--users=all", "--k=0"], "--k: 0 is not at least 1"),
        (
            "recommend",
            ["--users=no.csv"],
            "--users: no.csv: is neither 'all' nor a file",
        ),
        ("recommend", ["--users=."], "--users: .: the name ends in none of"),
        ("recommend", ["--history=i1 x"], "--history: no item 'x' in the catalogue"),
        ("recommend", ["--history=i1", "--items=no.csv"], "--items: no.csv: no such"),
        ("recommend", [], "one of the arguments --users --history is required"),
        ("recommend", ["--users=all", "--k=x"], "argument --k: invalid int value"),
        ("similar", ["--items=x"], "items: no item 'x' in the catalogue"),
        ("similar", ["--items=i1", "--k=0"], "k: 0 is not at least 1"),
        ("embed", ["--out=x.csv"], "--out: x.csv: the name does not end in .parquet"),
        ("export", ["--to=onnx", "--out=x", "--batch=0"], "--batch: 0 is not at least"),
    ],
)
def test_mistakes_are_one_line(run, name, options, message):
    code, _, output = run(name, *options)
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--modl=runs/x"], "unrecognized arguments: --modl=runs/x"),
        ([], "--model is required"),
    ],
)
def test_a_misspelt_model_option_is_named(capsys, monkeypatch, options, message):
    monkeypatch.setattr(command, "keep_console", lambda **_: None)
    parser = command.make_parser("embed", "")
    with pytest.raises(SystemExit, match="2"):
        command.run_command(parser, lambda _: None, options)
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_directory_without_a_model_is_refused(run, tmp_path):
    code, _, output = run("recommend", "--users=all", model=tmp_path)
    assert code == 2
    assert "is not a model of recjax" in output


def test_another_model_starts_the_lists_again(run, finished, tmp_path, monkeypatch):
    """The parts of one model are not joined with those of another one."""
    out = tmp_path / "lists.csv"
    one = recjax.load(finished)
    other = recjax.load(shutil.copytree(finished / "model", tmp_path / "model"))
    other.add_items({"new": "one two drama"})
    assert batches._digest(one) == batches._digest(recjax.load(finished))
    assert batches._digest(one) != batches._digest(other)
    assert not out.exists()


@pytest.mark.parametrize("key", ["head/bilinear/kernel", "users/recency"])
def test_parts_know_all_parameters(finished, key):
    """A model that differs in the user tower or the head alone is another one."""
    one, other = recjax.load(finished), recjax.load(finished)
    names = [path for path in other.parts.params if not path.startswith("items/")]
    path = key if key in names else names[-1]
    other.parts.params[path] = other.parts.params[path] + 1
    assert batches._digest(one) != batches._digest(other)


def test_damaged_parts_are_made_again_and_others_kept(
    run, model, tmp_path, monkeypatch
):
    out, folder = tmp_path / "lists.csv", tmp_path / ".parts.lists.csv"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    code, _, output = run("recommend", "--users=all", f"--out={out}")
    assert (code, "has files of something else" in output) == (2, True)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.LazyFrame, "sink_csv", full)
        assert run("recommend", "--users=all", f"--out={out}")[0] == 2
    (folder / "000000000000.parquet").write_bytes(b"PAR1x")
    assert run("recommend", "--users=all", f"--out={out}")[0] == 0
    assert len(read(out)) == len(model.recommend(users="all"))
    assert not folder.exists()


@pytest.mark.parametrize("raw", [b'{"theme": "dark"}', b"\xff", b"[]"])
def test_settings_of_something_else_are_kept(run, tmp_path, raw):
    folder = tmp_path / ".parts.lists.csv"
    folder.mkdir()
    (folder / "settings.json").write_bytes(raw)
    code, _, output = run("recommend", "--users=all", f"--out={tmp_path}/lists.csv")
    assert code == 2
    assert "has files of something else (settings.json); move it away" in output
    assert (folder / "settings.json").read_bytes() == raw


def test_a_file_among_the_parts_is_kept(run, tmp_path, monkeypatch):
    """Other settings start again, but only without files of the user."""
    out, folder = tmp_path / "lists.csv", tmp_path / ".parts.lists.csv"

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.LazyFrame, "sink_csv", full)
        assert run("recommend", "--users=all", f"--out={out}")[0] == 2
    (folder / "notes.txt").write_text("mine")
    code, _, output = run("recommend", "--users=all", "--k=3", f"--out={out}")
    assert (code, "(notes.txt); move it away" in output) == (2, True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_settings_onto_a_full_disk_name_the_file(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")  # without a file name

    monkeypatch.setattr(Path, "write_text", full)
    code, _, output = run("recommend", "--users=all", f"--out={tmp_path}/lists.csv")
    path = tmp_path / ".parts.lists.csv" / "settings.json"
    assert code == 2
    assert output == f"error: {path}: cannot be written (No space left on device)\n"


def test_a_link_stays_and_its_file_is_written(run, tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "lists.csv", tmp_path / "link.csv"
    link.symlink_to(target)
    for users in (["--users=all"], ["--history=i1"]):
        assert run("recommend", *users, f"--out={link}")[0] == 0
        assert link.is_symlink()
        assert len(read(target))
        target.unlink()
    link.unlink()
    link.symlink_to(tmp_path / "lists.parquet")
    code, _, output = run("recommend", "--history=i1", f"--out={link}")
    assert (code, "does not end in .csv" in output) == (2, True)


@pytest.mark.parametrize("option", ["--users", "--among"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("1\n2\n", "its first line has the columns '1'"),
        ("name,age\nu1,2\n", "its first line has the columns 'name', 'age'"),
        ("user_id,item\n", "has no rows"),
    ],
)
def test_the_columns_of_a_file_are_named(run, tmp_path, option, content, problem):
    """Without a header the first line would not be data but names."""
    path = tmp_path / "x.csv"
    path.write_text(content)
    history = ["--history=i1"] if option == "--among" else []
    code, _, output = run("recommend", *history, f"{option}={path}")
    assert code == 2
    assert output.startswith(f"error: {option}: {path}: ")
    assert problem in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("name", ["recommend", "embed"])
def test_a_file_of_items_without_ids_is_named(run, tmp_path, name):
    path = tmp_path / "new.csv"
    path.write_text("id,title,genre\n1,one,drama\n")
    history = ["--history=i1"] if name == "recommend" else []
    out = f"--out={tmp_path / 'out.parquet'}"
    code, _, output = run(name, *history, f"--items={path}", out)
    problem = "no column 'item_id'; its first line has the columns 'id', 'title'"
    assert (code, f"--items: {path}: {problem}" in output) == (2, True)


def test_columns_may_have_plain_names(run, model, tmp_path):
    """A run with `data.user="user_id"` reads `user` too, and does not check others."""
    users, among = tmp_path / "users.csv", tmp_path / "among.csv"
    out = tmp_path / "out.parquet"
    users.write_text(f"x,user\n1,{model.users[3]}\n")
    among.write_text("item,item_id\n,i5\n,i6\n")
    options = (f"--users={users}", f"--among={among}", f"--out={out}")
    assert run("recommend", *options, "--include_seen")[0] == 0
    assert read(out)["user"].to_list() == [model.users[3]] * 2
    assert set(read(out)["item"]) == {"i5", "i6"}
    users.write_text("user,item\na,i1\na,i2\n")
    assert run("recommend", f"--users={users}", f"--out={out}")[0] == 0
    want = model.recommend(histories=[["i1", "i2"]])
    assert read(out)["item"].to_list() == want["item"].to_list()


def test_unknown_users_are_counted(run, model, tmp_path):
    users = tmp_path / "users.csv"
    names = [model.users[0], *(f"new{i}" for i in range(7)), "new0"]
    users.write_text("user_id\n" + "\n".join(names) + "\n")
    code, _, output = run("recommend", f"--users={users}")
    first = "'new0', 'new1', 'new2', 'new3', 'new4', ..."
    assert code == 2
    assert output == f"error: users: 7 users are not in the model: {first}\n"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("recommend", ["--history=i1", "--k=3", "--k", "4"]),
        ("recommend", ["--history=i1", "--history=i2", "--k=3"]),
        ("embed", ["--out=x.parquet", "--out=y.parquet"]),
        ("similar", ["--items=i1", "--model=other"]),
    ],
)
def test_a_repeated_option_is_refused(run, name, options):
    code, _, output = run(name, *options)
    assert code == 2
    assert "is given 2 times; give it once; see --help" in output


def test_a_file_that_is_named_is_meant(run, tmp_path):
    """Although there is a compressed one with nearly the same name."""
    users = tmp_path / "users.csv"
    users.write_text("user_id,item_id\na,i1\n")
    (tmp_path / "users.csv.gz").write_bytes(gzip.compress(b"user_id,item_id\nb,i1\n"))
    for path, user in ((users, "a"), (tmp_path / "users.csv.gz", "b")):
        code, output, _ = run("recommend", f"--users={path}", "--k=1")
        assert (code, output.splitlines()[0]) == (0, f"user {user}:")


@pytest.mark.parametrize(
    ("times", "first"), [("9,10", "i1"), ("2024-05-31,1999-01-01", "i2")]
)
def test_histories_of_a_file_are_in_order_of_time(run, model, tmp_path, times, first):
    """Seconds of different length are not texts."""
    users, out = tmp_path / "users.csv", tmp_path / "lists.parquet"
    one, two = times.split(",")
    users.write_text(f"user_id,item_id,timestamp\na,i1,{one}\na,i2,{two}\n")
    assert run("recommend", f"--users={users}", f"--out={out}")[0] == 0
    order = [first, "i2" if first == "i1" else "i1"]
    want = model.recommend(histories=[order])
    assert read(out)["score"].to_list() == want["score"].to_list()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("user_id,x\nu1,1\nu2,2,3\n", "row 3: 3 columns"),
        ("user_id,item_id\n,i1\n", "row 2: user_id is ''"),
        ("user_id,item_id,timestamp\na,i1,soon\n", "row 2: timestamp is 'soon'"),
    ],
)
def test_bad_rows_are_named(run, tmp_path, content, problem):
    users = tmp_path / "users.csv"
    users.write_text(content)
    code, _, output = run("recommend", f"--users={users}")
    assert code == 2
    assert problem in output


def test_no_input_and_no_model_is_overwritten(run, finished, tmp_path):
    users = tmp_path / "users.csv"
    users.write_text("user_id,item_id\na,i1\n")
    before = users.read_text()
    code, _, output = run("recommend", f"--users={users}", f"--out={users}")
    assert (code, "is the file of --users" in output) == (2, True)
    assert users.read_text() == before
    for out in ("ranks.parquet", "model/items.parquet"):
        code, _, output = run("embed", f"--out={finished / out}")
        assert (code, "lies in the model" in output) == (2, True)
    recjax.load(finished)


def test_no_input_in_the_home_directory_is_overwritten(
    run, finished, tmp_path, monkeypatch
):
    """Shells leave `~` after `=` as it is, so options expand it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    users = tmp_path / "users.csv"
    users.write_text("user_id,item_id\na,i1\n")
    code, _, output = run("recommend", "--users=~/users.csv", "--out=~/users.csv")
    assert (code, "is the file of --users" in output) == (2, True)
    (tmp_path / "shop").symlink_to(finished)
    out = "--out=~/shop/model/items.parquet"
    code, _, output = run("embed", out, model="~/shop")
    assert (code, "lies in the model" in output) == (2, True)


def test_long_texts_are_no_paths(run, tmp_path):
    """Options with texts and ids are not checked as paths."""
    out = f"--out={tmp_path / 'out.csv'}"
    assert run("similar", f"--text={'one two ' * 600}", out)[0] == 0
    assert run("recommend", f"--history={'i1 ' * 2000}", out)[0] == 0


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("stablehlo", "user_tower.stablehlo"),
        ("sentence-transformers", "modules.json"),
    ],
)
def test_an_export_onto_a_full_disk_names_the_file(
    run, tmp_path, monkeypatch, to, name
):
    def fail(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")  # as write() does: no file name

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(Path, "write_text", fail)
    code, _, output = run("export", f"--to={to}", f"--out={tmp_path / 'out'}")
    assert code == 2
    file = tmp_path / "out" / name
    assert f"{file}: cannot be written (File too large)" in output


def test_an_export_overwrites_nothing_but_exports(run, finished, tmp_path):
    folder = shutil.copytree(finished / "model" / "encoder", tmp_path / "encoder")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = ("--to=sentence-transformers", f"--out={folder}")
    code, _, output = run("export", *options)
    assert (code, "was not made by recjax" in output) == (2, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    code, _, output = run("export", "--to=stablehlo", f"--out={finished}")
    assert (code, "lies in the model" in output) == (2, True)
    options = ("--to=sentence-transformers", f"--out={tmp_path / 'new'}")
    assert run("export", *options)[0] == 0
    assert run("export", *options)[0] == 0
    code, _, output = run("export", "--to=stablehlo", options[1])
    assert (code, "'export to sentence-transformers', not" in output) == (2, True)


@pytest.mark.parametrize("name", ["recommend", "embed"])
def test_a_full_disk_is_one_line(run, tmp_path, name, monkeypatch):
    def full(*_, **__):
        raise pl.exceptions.ComputeError("No space left on device\nmore")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    options = ["--history=i1"] if name == "recommend" else []
    out = tmp_path / "out.parquet"
    code, _, output = run(name, *options, f"--out={out}")
    assert code == 2
    assert output == f"error: {out}: cannot be written (No space left on device)\n"


@pytest.mark.parametrize("platform", ["cuda", "gpuu"])
def test_a_device_that_is_not_there_is_named(finished, tmp_path, platform):
    program = [sys.executable, "-m", "recjax.recommend", f"--model={finished}"]
    done = subprocess.run(
        [*program, "--history=i1"],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: JAX_PLATFORMS={platform}")
    assert "Traceback" not in done.stderr


def test_lists_that_nobody_receives_are_an_error(finished):
    command = f"{sys.executable} -m recjax.recommend --model={finished} --users=all"
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: standard output: No space left on device\n",
    )


def test_the_console_script(finished):
    def call(*options):
        program = [sys.executable, "-m", "recjax", *options]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    done = call("recommend", f"--model={finished}", "--history=i1", "--k=2")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    done = call("recomend")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no command 'recomend'; there are train, ")
    assert "train" in call("--help").stdout
    assert set(cli.COMMANDS) == {*PROGRAMS, "feedback", "serve", "train"}
