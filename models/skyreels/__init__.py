"""SkyReels-V2 diffusion forcing on diffusers' own classes, with our loop."""
