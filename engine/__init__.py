"""What models and methods share: the method interface, the denoising loop, schedules, forecasts, measurements."""
