"""Requests made from the OpenAPI description of the service: no answer is a 5xx."""

import contextlib

import pytest

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")


@pytest.fixture(scope="module")
def app(finished, tmp_path_factory):
    from recjax.serving.app import make_app
    from recjax.serving.metrics import Metrics
    from recjax.serving.open_store import open_store
    from recjax.serving.service import Service

    path = tmp_path_factory.mktemp("store") / "events.sqlite"
    metrics = Metrics()
    store = open_store(str(path), "--store")
    service = Service(str(finished), store, spare=512, report=metrics.batch)
    yield make_app(service, metrics, reloadable=False)
    service.close()


def test_no_described_request_is_a_5xx(app):
    """Valid and invalid ones, for every route."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    routes = []
    for found in schema.get_all_operations():
        operation = found.ok()
        routes.append(operation.label)
        modes = (
            schemathesis.GenerationMode.POSITIVE,
            schemathesis.GenerationMode.NEGATIVE,
        )
        for mode in modes:

            @hypothesis.settings(
                max_examples=25,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def check(case):
                response = case.call()
                assert response.status_code < 500, (
                    case.as_curl_command(),
                    response.text,
                )
                if response.status_code >= 400:
                    assert set(response.json()) == {"error"}

            # A route without parameters has no invalid request.
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                check()
    assert "POST /feedback" in routes
    assert len(routes) > 10
