"""Measurements of this project: speed, memory, comparisons at equal cost, fits. The tests do not run them."""
