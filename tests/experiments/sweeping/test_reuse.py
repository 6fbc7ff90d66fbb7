"""Reuse of the runs of other sweeps."""

import pytest

from experiments import sweep
from tests.experiments.conftest import results


def test_a_run_of_another_sweep_is_linked(sweep_config, tmp_path, capsys):
    """A run of the same config, whatever its name, but not of another seed."""
    path, one, other = sweep_config(), tmp_path / "one", tmp_path / "other"
    asked = ["--config", path, "--variants", "narrow", "--seeds"]
    sweep.main([*asked, "0", "--out", str(one)])
    sweep.main([*asked, "0", "1", "--out", str(other), "--reuse", str(one)])
    said = capsys.readouterr().out
    assert f"narrow/0: the same as {one.resolve()}/narrow/0" in said
    assert said.count("narrow 0: started") == 1
    assert said.count("narrow 1: started") == 1
    assert (other / "narrow" / "0").is_symlink()
    assert not (other / "narrow" / "1").is_symlink()
    found = results(other)
    assert found["narrow/0/results.json"] == results(one)["narrow/0/results.json"]
    one.rename(tmp_path / "moved")  # a dead link: the run is repeated
    sweep.main([*asked, "0", "1", "--out", str(other)])
    assert "narrow 0: started" in capsys.readouterr().out
    assert results(other) == found
    with pytest.raises(SystemExit, match="2"):
        sweep.main([*asked, "0", "--out", str(other), "--reuse", str(tmp_path / "no")])
    assert "--reuse" in capsys.readouterr().err


def test_a_linked_run_is_linked_again(sweep_config, tmp_path, capsys):
    """The new link leads to the sweep that made the run."""
    asked = [
        "--config",
        sweep_config(),
        "--variants",
        "narrow",
        "--seeds",
        "0",
        "--out",
    ]
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    sweep.main([*asked, str(one)])
    sweep.main([*asked, str(two), "--reuse", str(one)])
    sweep.main([*asked, str(three), "--reuse", str(two)])
    assert capsys.readouterr().out.count("narrow 0: started") == 1
    assert (three / "narrow" / "0").resolve() == (one / "narrow" / "0").resolve()
