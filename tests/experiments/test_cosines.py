"""How alike vectors are."""

import re

import numpy as np
import pytest

from experiments.vectors import cosines


@pytest.mark.unit
def test_the_mean_is_over_pairs_of_different_rows():
    rng = np.random.default_rng(0)
    vectors_NxE = rng.normal(size=(7, 3)) * rng.uniform(1, 9, (7, 1)) + 0.5
    each = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(vectors_NxE)
        for b in vectors_NxE[:i]
    ]
    assert cosines.mean_cosine(vectors_NxE) == pytest.approx(np.mean(each))


def test_vectors_of_a_config(sweep_config, capsys):
    with pytest.raises(SystemExit, match="2"):
        cosines.main(["--config", "no.py"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such file or directory: 'no.py'" in line
    flags = ["--config", sweep_config()]
    with pytest.raises(SystemExit, match="2"):
        cosines.main(flags)
    assert "item_tower.sources: add 'text'" in capsys.readouterr().err
    cosines.main([*flags, "--config.item_tower.sources=('text',)"])
    said = capsys.readouterr().out
    found = re.search(
        r"\d+ items, \d+ dimensions: .* (-?\d\.\d\d), .* (-?0\.\d\d)\n", said
    )
    assert found
    assert float(found[1]) > abs(float(found[2])) + 0.1  # a narrow cone, and none
