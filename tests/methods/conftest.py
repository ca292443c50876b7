import pytest
from pair import Pair
from worlds import WORLDS


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """{modality: {world: overrides}}."""
    folder = tmp_path_factory.mktemp("worlds")
    return {modality: {name: make(folder) for name, make in some.items()} for modality, some in WORLDS.items()}


@pytest.fixture(scope="session")
def pair():
    """Two gloo processes: `pair(function, ...)` returns what each of them returned."""
    two = Pair()
    yield two
    two.stop()


@pytest.fixture(scope="session")
def trio():
    """Three of them."""
    three = Pair(3)
    yield three
    three.stop()
