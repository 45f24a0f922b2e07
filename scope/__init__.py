"""The method SCOPE: cache, predict or recompute along the denoising trajectory, on the active frames only."""
