"""Evaluation of finished runs under other protocols."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import sweep
from experiments.protocol import run as run_lib
from experiments.protocol.page import METRICS, Protocol, page, plot, write_csv
from experiments.protocol.run import COMPARED, evaluate
from recjax.data.splits import load_data
from recjax.run import train


def test_a_protocol_gives_the_results_of_training_with_it(config, tmp_path):
    """The protocol of the run gives its own results, and another protocol others.

    Baselines do not depend on the run, so they give those of the other run.
    """
    config = config.copy_and_resolve_references().unlock()
    config.eval.baselines = COMPARED
    protocols, finals = {"masked": (True, 0), "drawn": (False, 7)}, {}
    for name, (config.eval.mask_seen, config.eval.candidates) in protocols.items():
        train.run(config.copy_and_resolve_references().lock(), str(tmp_path / name))
        text = (tmp_path / name / "results.json").read_text()
        finals[name] = json.loads(text)
    fitted = run_lib.fit_baselines(config)
    for name, (config.eval.mask_seen, config.eval.candidates) in protocols.items():
        for run in protocols:
            found = evaluate(config, fitted, tmp_path / run)
            trained = found.pop("trained")
            for metric in METRICS:
                for baseline, values in found.items():
                    want = finals[name]["baselines"][baseline][metric]["value"]
                    assert values[metric].mean() == pytest.approx(want, abs=1e-6)
                own = pytest.approx(finals[run]["test"][metric]["value"], abs=1e-6)
                assert (trained[metric].mean() == own) == (run == name)


def test_the_page_and_the_csv(tmp_path):
    """Two seeds that are not the first ones; one system does not depend on them.

    The two differ in NDCG under the first protocol for every user, of which there are
    enough that chance cannot do it.
    """

    def values(hits, ndcg):
        hit_R = np.arange(40) < hits
        return {
            "transitions": {"hr@10": np.arange(40) < 20, "ndcg@10": np.full(40, 0.25)},
            "trained": {"hr@10": hit_R, "ndcg@10": np.full(40, ndcg)},
        }

    found = {
        Protocol("file", "file", True, 0): {3: values(20, 0.5), 5: values(30, 0.5)},
        Protocol("file", "drawn", False, 100): {
            3: values(4, 0.25),
            5: values(4, 0.25),
        },
    }
    text = page(found, (0.25, 0.125, 0.375), "made so")
    assert text.endswith("\n\nmade so")
    assert (
        "| file | file | masked | all | 0.5000 / 0.2500 | 0.6250 ± 0.1768 / 0.5000 | "
        "+0.2500 | 0.0002 |\n"
        "| file | drawn, leaks | not masked | 100 sampled | 0.5000 / 0.2500 | "
        "0.1000 / 0.2500 | +0.0000 | 1.0000 |\n"
    ) in text
    assert "over seeds 3, 5; 40 users." in text
    assert "25.0% of the test targets differ between the two orders; 12.5% of" in text
    assert "37.5% the other way round" in text
    write_csv(tmp_path / "table.csv", found)
    _, *lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 4
    name, _, low, high, seeds, *_ = lines[1].split(",")[4:]
    assert (name, seeds) == ("trained", "0.500000 0.750000")
    assert lines[1].endswith(",0.250000,0.000200")
    assert lines[0].endswith(",,")
    # Half of the users hit with both seeds, a quarter with one: that share's error.
    assert 0.45 < float(low) < 0.55
    assert 0.7 < float(high) < 0.8
    plot(tmp_path / "plot.png", found)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def tiny(sweep_config, atomic_dir, monkeypatch):
    """Replaces the data set by one that takes seconds."""
    monkeypatch.setattr(run_lib, "locate_data", lambda name: {"tiny": atomic_dir}[name])
    monkeypatch.setattr(run_lib, "DATA", "tiny")
    monkeypatch.setattr(run_lib, "CANDIDATES", 10)
    monkeypatch.setattr(run_lib, "CONFIG", sweep_config())
    monkeypatch.setattr(run_lib, "VARIANT", "narrow")


def test_the_orders_have_the_same_lines(tmp_path, tiny, atomic_dir):
    run_lib.shuffle_data(tmp_path)
    one, other = [(x / "tiny.inter").read_text() for x in (atomic_dir, tmp_path)]
    assert one != other
    assert one.splitlines()[0] == other.splitlines()[0]
    assert sorted(one.splitlines()) == sorted(other.splitlines())
    assert (tmp_path / "tiny.item").read_text() == (
        atomic_dir / "tiny.item"
    ).read_text()


def test_all_protocols_are_evaluated(tmp_path, tiny):
    """One of the two runs is linked; the protocol of training gives its results."""
    other, runs, out = (tmp_path / name for name in ("other", "runs", "out"))
    asked = [f"--config={run_lib.CONFIG}", "--variants=narrow", "--seeds", "4"]
    sweep.main([*asked, f"--out={other}"])
    asked = [str(runs), f"--out={out}", "--seeds", "4", f"--reuse={other}"]
    run_lib.main(asked)
    assert (runs / "file" / "narrow" / "4").is_symlink()
    assert not (runs / "shuffled" / "narrow" / "4").is_symlink()
    with (out / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "trained"]
    assert len(rows) == 16
    for order in run_lib.ORDERS:
        final = json.loads((runs / order / "narrow/4/results.json").read_text())
        (own,) = (
            row
            for row in rows
            if (row["trained"], row["evaluated"], row["masked"], row["candidates"])
            == (order, order, "True", "0")
        )
        want = final["test"]["ndcg@10"]["value"]
        assert float(own["ndcg@10"]) == pytest.approx(want, abs=1e-6)
    text = (out / "table.md").read_text()
    assert "over seeds 4; " in text
    assert f"first row is {final['fingerprint']}" not in text  # of the other order
    final = json.loads((runs / "file" / "narrow/4/results.json").read_text())
    assert f"first row is {final['fingerprint']}. The models were made" in text
    assert f"code digest {final['code']}.\n\n    python -m experiments.prot" in text
    assert (out / "plot.png").exists()


def test_the_fraction_of_leaked_targets(config):
    data = load_data(config)
    targets_R = data.test.targets_R.copy()
    targets_R[:10] = data.num_items  # no user has it

    def asking(targets_R):
        return replace(data, test=replace(data.test, targets_R=targets_R))

    last_of_training = dict(zip(data.train.users_R, data.train.targets_R, strict=True))
    known_R = [last_of_training[user] for user in data.test.users_R]
    assert run_lib.leaked(data, asking(np.array(known_R))) == 1.0
    known_R[:10] = targets_R[:10]
    share = 1 - 10 / len(known_R)
    assert run_lib.leaked(data, asking(np.array(known_R))) == pytest.approx(share)
