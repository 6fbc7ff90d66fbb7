"""Tests of the logs of an interrupted run."""

import json

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from recjax.reporting.log_files import cut_events, cut_jsonl

pytestmark = pytest.mark.unit

LINES = [json.dumps({"step": step, "train/loss": 0.1}) for step in range(5)]


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        ("\n".join(LINES) + "\n", 0),
        ("\n".join(LINES[:3]) + "\n", 0),
        ("\n".join(LINES[:2]) + "\n", 1),
        ("\n".join(LINES)[:-3].replace(LINES[2], LINES[2][:9]), 1),
        ("\n".join(LINES[:2]) + "\n" + LINES[2][:-1], 1),  # cut within a line
        ("\n".join([LINES[0], "\0\0\0", LINES[2]]) + "\n", 2),
        ("", 3),
    ],
)
def test_whole_records_up_to_the_checkpoint_are_kept(tmp_path, raw, missing):
    path = tmp_path / "metrics.jsonl"
    path.write_text(raw)
    text, count, problem = cut_jsonl(path, 3)
    assert count == 3 - missing
    assert text == "".join(line + "\n" for line in LINES[:count])
    expected = f"{path}: {missing} of 3 records are missing" if missing else ""
    assert problem == expected


def test_deleted_or_binary_logs_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert cut_jsonl(path, 2) == ("", 0, f"{path}: 2 of 2 records are missing")
    path.write_bytes(b"\xff\xfe\n" * 3)
    assert cut_jsonl(path, 2)[1] == 0
    assert cut_events(tmp_path / "events", 10).endswith("points with it")


def test_event_files_end_with_a_complete_record(tmp_path):
    writer = EventsWriter(str(tmp_path / "events"), "")
    sizes = []
    (path,) = tmp_path.glob("*tfevents*")
    for step in range(4):
        writer.write_event(Event(step=step))
        writer.flush()
        sizes.append(path.stat().st_size)
    writer.close()
    raw = path.read_bytes()

    def steps():
        return [event.step for event in EventFileLoader(str(path)).Load()]

    assert cut_events(path, sizes[2]) == ""  # written after the checkpoint
    assert path.read_bytes() == raw[: sizes[2]]
    for cut in (1, 5, sizes[2] - sizes[1] - 1):
        path.write_bytes(raw[: sizes[2] - cut])
        problem = cut_events(path, sizes[2])
        lost = sizes[2] - sizes[1]
        assert problem == f"{path}: {lost} of {sizes[2]} bytes are missing or damaged"
        assert path.read_bytes() == raw[: sizes[1]]
        assert steps()[-1] == 1


@pytest.mark.parametrize("place", range(1, 18, 4))
def test_a_damaged_record_ends_an_event_file(tmp_path, place):
    """TensorBoard reads nothing after it."""
    writer = EventsWriter(str(tmp_path / "events"), "")
    (path,) = tmp_path.glob("*tfevents*")
    sizes = []
    for step in range(4):
        writer.write_event(Event(step=step))
        writer.flush()
        sizes.append(path.stat().st_size)
    writer.close()
    raw = bytearray(path.read_bytes())
    raw[sizes[1] + place] ^= 255
    path.write_bytes(raw)
    assert "are missing or damaged" in cut_events(path, sizes[3])
    assert path.read_bytes() == bytes(raw[: sizes[1]])
