import pytest

from tests.abtest.read.read_cases import people


@pytest.fixture(scope="module")
def crowd():
    return people()
