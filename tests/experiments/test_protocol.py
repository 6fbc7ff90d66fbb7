"""What a run's parameters give when they are asked anew."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.protocol import run as protocol
from recjax import train
from recjax.data import sources
from recjax.data.protocol import load_data


def test_the_protocol_of_the_run_gives_its_results(config, tmp_path, monkeypatch):
    """And another one those of a run that was asked so from the start."""
    c = config.copy_and_resolve_references().unlock()
    c.eval.baselines = protocol.BESIDE
    for masked, candidates in ((True, 0), (False, 7)):
        c.eval.mask_seen, c.eval.candidates = masked, candidates
        train.run(c.copy_and_resolve_references().lock(), str(tmp_path / str(masked)))
    rows = load_data(c).train
    for run in ("True", "False"):
        for masked, candidates in ((True, 0), (False, 7)):
            c.eval.mask_seen, c.eval.candidates = masked, candidates
            found = protocol.ask(c, rows, tmp_path / run)
            if run != str(masked):  # the epoch was chosen by another validation
                continue
            final = json.loads((tmp_path / run / "results.json").read_text())
            wanted = {**final["baselines"], "trained": final["test"]}
            for name in protocol.NAMES:
                for metric in protocol.METRICS:
                    value = wanted[name][metric]["value"]
                    assert found[name][metric] == pytest.approx(value, abs=1e-6)


def test_the_orders_have_the_same_rows(tmp_path, atomic_dir, monkeypatch):
    monkeypatch.setattr(sources, "locate", lambda name: atomic_dir)
    monkeypatch.setattr(protocol, "DATA", "tiny")
    one, other = (protocol.copy_data(tmp_path, order) for order in protocol.ORDERS)
    texts = [(folder / "tiny.inter").read_text() for folder in (one, other)]
    assert texts[0] == (atomic_dir / "tiny.inter").read_text()
    assert texts[0] != texts[1]
    rows = [text.splitlines() for text in texts]
    assert rows[0][0] == rows[1][0]
    assert sorted(rows[0]) == sorted(rows[1])
    assert (one / "tiny.item").read_text() == (other / "tiny.item").read_text()


def test_what_training_has_of_the_test(config):
    data = load_data(config)
    targets_R = data.test.targets_R.copy()
    targets_R[:10] = data.num_items  # which nobody had

    def asking(targets_R):
        return replace(data, test=replace(data.test, targets_R=targets_R))

    last_of_training = dict(zip(data.train.users_R, data.train.targets_R, strict=True))
    known_R = [last_of_training[user] for user in data.test.users_R]
    assert protocol.leaked(data, asking(np.array(known_R))) == 1.0
    known_R[:10] = targets_R[:10]
    share = 1 - 10 / len(known_R)
    assert protocol.leaked(data, asking(np.array(known_R))) == pytest.approx(share)
