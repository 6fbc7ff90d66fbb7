"""Data, cache and the uninterrupted run that all killed runs are compared with."""

import pytest

from tests import synthetic
from tests.faults import runs


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return synthetic.write_atomic(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="package")
def cache(tmp_path_factory):
    """The environment variable of a cache that all starts share."""
    return {"RECJAX_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="package")
def uninterrupted(data, cache, tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert runs.finish(data, workdir, **cache) == 0, runs.output(workdir)
    return workdir
