"""Questions at random by what the OpenAPI document says: no error of the server, and no answer that contradicts the document."""

import pytest

from web.fuzzing import fuzz


@pytest.mark.services
def test_two_minutes_of_random_questions_find_nothing_wrong(tmp_path):
    found = fuzz(tmp_path / "run", seconds=90, seed=20)
    assert found.passed, found.said
    assert found.n_operations == found.n_selected > 60
    assert found.n_cases > 200


def test_every_address_documents_what_it_answers_instead(client):
    document = client.get("/api/v1/openapi.json").json()
    for address, methods in document["paths"].items():
        for method, one in methods.items():
            assert {"4XX", "503"} <= set(one["responses"]), (method, address)
            assert "422" not in one["responses"], (method, address)
    assert "HTTPValidationError" not in document["components"]["schemas"]
