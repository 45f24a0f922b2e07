"""Evaluation: similarity of a video to its Original, validity, and motion."""
