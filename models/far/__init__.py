"""AnyFlow-FAR on diffusers' own classes, with our loop."""
