"""What we measure ourselves with: speed, memory, equal-cost comparisons, fits. Never run by the tests."""
