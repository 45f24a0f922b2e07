"""`python -m engine.doctor [model=NAME] [results=FOLDER]`: what of this machine is ready, what to do about the rest.

The checks look at the menu, weights and evaluation, which the engine does not know: they are in sweep/doctor.py.
"""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("sweep.doctor").main(sys.argv[1:]))
