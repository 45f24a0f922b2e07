"""The backbones (SkyReels-V2, MAGI-1), their tiny presets, and the training of those."""
