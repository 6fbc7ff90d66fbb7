"""What the runs that are killed share."""

import pytest

from tests import synthetic
from tests.faults import runs


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return synthetic.write_atomic(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="package")
def cache(tmp_path_factory):
    """Compiled programs, for all the starts."""
    return {"RECJAX_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="package")
def whole(data, cache, tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert runs.finish(data, workdir, **cache) == 0, runs.said(workdir)
    return workdir
