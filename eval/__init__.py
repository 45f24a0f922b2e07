"""Evaluation: how close a video is to its Original, whether it is a video at all, and how it moves."""
