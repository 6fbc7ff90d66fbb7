"""Lines of progress where the output is no terminal."""

import sys

import pytest

from recjax.reporting.bars import make_bar

pytestmark = pytest.mark.unit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_lines_become_rarer_and_the_last_state_is_shown(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock)
    bar = make_bar(7300, 0, "towers", "step", active=True)
    monkeypatch.setattr(bar, "_time", clock)
    for _ in range(7300):
        clock.now += 1
        bar.update()
    bar.close()
    printed = capsys.readouterr().out.splitlines()
    # Threads of other tests may print too.
    lines = [line for line in printed if line.startswith("towers: ")]
    assert lines[0].startswith("towers: 10 of 7300 steps, 00:10, ")
    assert lines[-1].startswith("towers: 7300 of 7300 steps, 2:01:40, 00:00 left")
    assert 20 < len(lines) < 60
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_a_short_bar_is_one_line_if_it_has_values(capsys):
    for values in ("", "loss 3.1"):
        bar = make_bar(3, 0, "towers", "step", active=True)
        bar.set_postfix_str(values, refresh=False)
        bar.update(3)
        bar.close()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == bool(values)
    assert lines[0].startswith("towers: 3 of 3 steps, 00:00")
    assert lines[0].endswith("loss 3.1")


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    bar = make_bar(3, 0, "towers", "step", active=True)
    bar.update(3)
    bar.close()
    assert "towers: 100%" in capsys.readouterr().out
