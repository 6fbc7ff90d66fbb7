"""The run directory: what it may hold, what may move, and what the run leaves there."""

import json
import shutil
from pathlib import Path

import pytest

from recjax.checkpointing.checkpoints import Checkpoints, read_params
from recjax.common.errors import UserError
from recjax.config import base
from recjax.reporting.writer import Reporter
from recjax.run import train, workdir
from recjax.run.dry_run import dry_run
from recjax.runtime.locks import MARK
from tests.conftest import TINY_BERT


@pytest.fixture
def ids_only(config):
    """A config whose runs take a second."""
    c = config.unlock()
    c.item_tower.sources = ("id",)
    c.train.phases = (base.phase("p", epochs=1, lr=0.01),)
    return c.lock()


def changed(config, **changes):
    """A copy of a config; keys have __ for the dot."""
    c = config.copy_and_resolve_references().unlock()
    for key, value in changes.items():
        section, _, name = key.partition("__")
        c[section][name] = value
    return c.lock()


FOREIGN = {
    "a model": {"config.json": '{"model_type": "bert"}', "model.safetensors": ""},
    "events of others": {"events.out.tfevents.1.host": "x"},
    "metrics": {"metrics.jsonl": '{"loss": 1}\n', "results.md": "mine"},
    "numbered folders": {"checkpoints/last/100/weights.bin": "x"},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("start", [train.run, dry_run])
def test_work_of_others_is_not_touched(ids_only, tmp_path, name, start):
    for file, content in FOREIGN[name].items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"is not empty .* was not made by recjax"):
        start(ids_only, str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    for file, content in FOREIGN[name].items():
        assert (tmp_path / file).read_text() == content


def test_the_directory_of_the_encoder_is_refused(config, tmp_path):
    folder = shutil.copytree(TINY_BERT, tmp_path / "encoder")
    with pytest.raises(UserError, match="was not made by recjax"):
        train.run(changed(config, text__encoder=str(folder)), str(folder))


def test_home_directories_and_names_of_other_encodings(ids_only, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    train.run(ids_only, "~/run")
    assert (tmp_path / "run" / "results.json").exists()
    with pytest.raises(UserError, match=r"--workdir: .* is not valid UTF-8"):
        train.run(ids_only, f"{tmp_path}/caf\udce9")


@pytest.mark.parametrize("name", ["[pool]", "a*b", "run?", "spa ce", "{x}"])
def test_names_are_never_patterns(ids_only, atomic_dir, tmp_path, name):
    data = shutil.copytree(atomic_dir, tmp_path / name / "data")
    for path in list(data.iterdir()):
        path.rename(data / path.name.replace(atomic_dir.name, "x"))
    c = changed(ids_only, data__source=str(data), data__file_prefix="x")
    workdir = tmp_path / name / "run"
    train.run(c, str(workdir))
    assert (workdir / "ranks.parquet").exists()


def test_a_moved_run_with_moved_data_continues(config, atomic_dir, tmp_path, capsys):
    data = shutil.copytree(atomic_dir, tmp_path / "old" / atomic_dir.name)
    encoder = shutil.copytree(TINY_BERT, tmp_path / "old" / "encoder")
    old = changed(config, data__source=str(data), text__encoder=str(encoder))
    final = train.run(old, str(tmp_path / "old" / "run"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    new = changed(
        config,
        data__source=str(tmp_path / "new" / atomic_dir.name),
        text__encoder=str(tmp_path / "new" / "encoder"),
    )
    run = tmp_path / "new" / "run"
    assert train.run(new, str(run)) == final
    (run / "results.json").unlink()  # resumes from the last checkpoint
    again = train.run(new, str(run))
    assert again["test"] == final["test"]
    assert "encoding items" not in capsys.readouterr().out.partition("resuming")[2]


def test_keys_of_the_report_may_differ(ids_only, tmp_path):
    final = train.run(ids_only, str(tmp_path))
    assert train.run(changed(ids_only, report__examples=50), str(tmp_path)) == final
    with pytest.raises(UserError, match=r"config \(train.batch_size: 16 before"):
        train.run(changed(ids_only, train__batch_size=8), str(tmp_path))


def test_changed_data_of_a_finished_run_are_named(
    ids_only, atomic_dir, tmp_path, capsys
):
    data = shutil.copytree(atomic_dir, tmp_path / atomic_dir.name)
    c = changed(ids_only, data__source=str(data))
    final = train.run(c, str(tmp_path / "run"))
    capsys.readouterr()
    train.run(c, str(tmp_path / "run"))
    assert "changed after this run" not in capsys.readouterr().out
    with (data / f"{data.name}.inter").open("a") as file:
        file.write("u0\ti0\t5\t9999\n")
    assert train.run(c, str(tmp_path / "run")) == final
    assert f"note: {data.name}.inter changed after this run" in capsys.readouterr().out


def test_text_of_data_cannot_harm(ids_only, atomic_dir, tmp_path, capsys):
    data = shutil.copytree(atomic_dir, tmp_path / atomic_dir.name)
    path = data / f"{data.name}.item"
    header, *lines = path.read_text().splitlines()
    title = header.split("\t").index("title:token_seq")
    hostile = "\x1b[31m<b>*bold*</b> \u202e" + "long " * 50
    rows = [line.split("\t") for line in lines]
    for row in rows:
        row[title] = hostile
    path.write_text("\n".join([header, *map("\t".join, rows)]))
    c = changed(ids_only, data__source=str(data), text__title="{title}")
    train.run(c, str(tmp_path / "run"))
    page = (tmp_path / "run" / "results.md").read_text()
    for shown in (
        capsys.readouterr().out,
        page,
        (tmp_path / "run/log.txt").read_text(),
    ):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert r"\x1b" in shown.replace("\\\\", "\\")
        assert "long " * 20 not in shown
    assert "<b>" not in page
    assert r"\<b\>\*bold\*" in page


def test_the_log_has_what_was_printed(ids_only, tmp_path, capsys):
    train.run(ids_only, str(tmp_path))
    out = capsys.readouterr().out
    log = (tmp_path / "log.txt").read_text()
    assert "\r" not in out
    printed = [line for line in out.splitlines() if " left" not in line]
    assert log.splitlines() == printed
    assert f"results: {tmp_path / 'results.md'}" in log


def test_vectors_of_texts_are_not_counted_as_baselines(config, tmp_path, monkeypatch):
    import time

    from recjax.catalogue.frozen_prefix import PrefixEncoder

    encode = PrefixEncoder.encode

    def slow(self, *args):
        time.sleep(2)
        return encode(self, *args)

    monkeypatch.setattr(PrefixEncoder, "encode", slow)
    seconds = train.run(changed(config, eval__baselines=("text",)), str(tmp_path))
    assert seconds["seconds"]["baselines"] < 2 < seconds["seconds"]["prefix"]


def test_a_run_whose_first_save_fails_ends(ids_only, tmp_path, monkeypatch):
    def fail(self):
        return False

    monkeypatch.setattr(Checkpoints, "flush_phase_checkpoint", fail)
    with pytest.raises(UserError, match="could not be saved"):
        train.run(ids_only, str(tmp_path))
    assert not (tmp_path / "metrics.jsonl").read_text()


def test_an_epoch_that_is_not_kept_is_named(ids_only, tmp_path, capsys):
    c = ids_only.copy_and_resolve_references().unlock()
    c.train.phases = (
        base.phase("good", epochs=3, lr=0.01),
        base.phase("bad", epochs=2, lr=10.0, patience=0),
    )
    final = train.run(c.lock(), str(tmp_path))
    assert final["phases"]["bad"]["kept_epoch"] == 0
    out = capsys.readouterr().out
    assert "warning: phase bad keeps nothing (best epoch 0 of 2): no epoch" in out
    assert "warning: phase good" not in out
    assert "| after phase bad (nothing kept of 2 epochs)" in out
    assert final["phases"]["bad"]["test"] == final["phases"]["good"]["test"]
    assert json.loads((tmp_path / MARK).read_text())["kind"] == "run"


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
def test_a_run_resumes_in_a_directory_of_any_name(
    ids_only, tmp_path, name, monkeypatch
):
    """Its checkpoints are saved there, and can be read again."""
    folder, complete = tmp_path / name / "run", train.complete_phase
    (tmp_path / "a1").mkdir()  # what the name matches as a pattern

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "complete_phase", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.run(ids_only, str(folder))
    monkeypatch.setattr(train, "complete_phase", complete)
    final = train.run(ids_only, str(folder))
    assert read_params(folder)
    assert not list((tmp_path / "a1").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "a1"])
    assert final["test"] == train.run(ids_only, str(tmp_path / "plain"))["test"]


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
@pytest.mark.parametrize("start", [train.run, dry_run])
def test_names_in_which_nothing_can_be_saved_are_refused(
    ids_only, tmp_path, name, start, monkeypatch
):
    """Where the system has no other names for directories."""
    monkeypatch.setattr(workdir, "DESCRIPTORS", tmp_path / "none")
    with pytest.raises(UserError, match="in its path; checkpoints cannot be saved"):
        start(ids_only, str(tmp_path / name / "run"))
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_shown_for_other_sources(config, atomic_dir, tmp_path):
    """Data, encoder and initial parameters are compared by their bytes."""
    c = config.unlock()
    c.train.phases = (base.phase("p", epochs=1, lr=0.01),)
    encoder = shutil.copytree(TINY_BERT, tmp_path / "encoder")
    data = shutil.copytree(atomic_dir, tmp_path / atomic_dir.name)
    run = str(tmp_path / "run")
    final = train.run(c.lock(), run)
    before = (tmp_path / "run" / "config.json").read_bytes()
    moved = changed(c, text__encoder=str(encoder), data__source=str(data))
    assert train.run(moved, run) == final
    with (data / f"{data.name}.inter").open("a") as file:
        file.write("u0\ti0\t5\t9999\n")
    with pytest.raises(UserError, match=f"data.source.*differs.*{data.name}.inter"):
        train.run(changed(c, data__source=str(data)), run)
    path = encoder / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=1))
    with pytest.raises(UserError, match=r"text.encoder: .* the tokenizer in "):
        train.run(changed(c, text__encoder=str(encoder)), run)
    with pytest.raises(UserError, match=r"text.encoder: '/no' is neither"):
        train.run(changed(c, text__encoder="/no"), run)
    with pytest.raises(UserError, match="/no: no such directory"):
        train.run(changed(c, train__init_from="/no"), run)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_tokenizer_that_changes_during_the_run_is_named(
    config, tmp_path, monkeypatch
):
    encoder = shutil.copytree(TINY_BERT, tmp_path / "encoder")
    c = changed(config, text__encoder=str(encoder), report__save_model=True).unlock()
    c.train.phases = (base.phase("p", epochs=1, lr=0.01),)
    path, complete = encoder / "tokenizer.json", train.complete_phase
    right = path.read_text()

    def replaced(*args):
        path.write_text(json.dumps(json.loads(right), indent=1))
        return complete(*args)

    monkeypatch.setattr(train, "complete_phase", replaced)
    with pytest.raises(UserError, match="its config or tokenizer changed during"):
        train.run(c.lock(), str(tmp_path / "run"))
    path.write_text(right)
    train.run(c, str(tmp_path / "run"))
    assert (tmp_path / "run" / "model" / "manifest.json").exists()


def test_a_finished_run_gets_a_model_and_a_page_later(ids_only, tmp_path, capsys):
    first = train.run(ids_only, str(tmp_path))
    page = (tmp_path / "results.md").read_text()
    (tmp_path / "results.md").unlink()
    assert train.run(ids_only, str(tmp_path)) == first
    assert (tmp_path / "results.md").read_text() == page
    assert not (tmp_path / "model").exists()
    second = train.run(changed(ids_only, report__save_model=True), str(tmp_path))
    assert "its model/ is written now" in capsys.readouterr().out
    assert second["test"] == first["test"]
    assert (tmp_path / "model" / "manifest.json").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_place_without_room_for_the_model_is_refused_first(ids_only, tmp_path, kind):
    """The model is written after the training, which would be lost."""
    c, run = changed(ids_only, report__save_model=True), tmp_path / "run"
    run.mkdir()
    (run / ".recjax").write_text('{"kind": "run"}\n')
    if kind == "file":
        (run / "model").write_text("mine")
    elif kind == "directory":
        (run / "model").mkdir()
        (run / "model" / "notes.txt").write_text("mine")
    else:
        (run / "model").symlink_to("elsewhere")
    for start in (train.run, dry_run):
        with pytest.raises(UserError, match=r"run/model: (exists and has|is a link)"):
            start(c, str(run))
    assert not (run / "checkpoints").exists()


def test_a_finished_run_with_a_promoted_model_is_shown(ids_only, tmp_path):
    c = changed(ids_only, report__save_model=True)
    first = train.run(c, str(tmp_path))
    (tmp_path / "model.versions").mkdir()
    (tmp_path / "model").rename(tmp_path / "model.versions" / "0123456789ab")
    (tmp_path / "model").symlink_to("model.versions/0123456789ab")
    assert train.run(c, str(tmp_path)) == first
    dry_run(c, str(tmp_path))
    assert (tmp_path / "model").is_symlink()
    (tmp_path / "model").unlink()  # by a promotion that was killed
    assert train.run(c, str(tmp_path)) == first
    assert (tmp_path / "model").is_symlink()


def test_backups_of_logs_are_not_deleted(ids_only, tmp_path, monkeypatch):
    """Only files that a run has written are cut back when it resumes."""
    monkeypatch.setattr(train, "_finish", lambda *_: {})  # the run stays unfinished
    train.run(ids_only, str(tmp_path))
    (events,) = tmp_path.glob("events.*")
    copies = [shutil.copy(events, f"{events}{end}") for end in (".bak", ".gz", "~")]
    other = shutil.copy(events, f"{events}0")  # of a start after the checkpoint
    train.run(ids_only, str(tmp_path))
    assert all(Path(copy).exists() for copy in copies)
    assert not Path(other).exists()


@pytest.mark.parametrize("name", ["results.md", "log.txt", "ranks.parquet"])
def test_a_directory_at_the_name_of_a_result_is_found_first(ids_only, tmp_path, name):
    (tmp_path / MARK).write_text("")
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: is not a regular file; move"):
        train.run(ids_only, str(tmp_path))
    assert not list(tmp_path.glob("events.*"))


def test_a_full_disk_names_the_directory(ids_only, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Reporter, "_add", full)
    with pytest.raises(UserError, match=r"run: the metrics cannot be written \(No sp"):
        train.run(ids_only, str(tmp_path / "run"))
    monkeypatch.undo()
    train.run(ids_only, str(tmp_path / "run"))
