"""Settings of the test run itself."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
