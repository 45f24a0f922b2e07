"""Settings of the test run itself."""

import gc
import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="module")
def libraries_are_not_searched_for_garbage():
    """Every video ends with a search for garbage. It takes 0.5 s here, unless what was imported is left out of it."""
    gc.collect()
    gc.freeze()
