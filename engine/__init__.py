"""Neutral ground: the method interface, the one denoising loop, schedules, forecasters and the meter."""
