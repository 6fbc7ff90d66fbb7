"""What the runs that are killed share."""

import pytest

from recjax.data import synthetic


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return synthetic.write_atomic(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="package")
def cache(tmp_path_factory):
    """Compiled programs, for all the starts."""
    return {"RECJAX_CACHE": str(tmp_path_factory.mktemp("cache"))}
