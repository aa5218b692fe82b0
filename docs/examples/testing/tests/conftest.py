import pytest


@pytest.fixture(scope="session")
def agola_store_types():
    return ["note"]
