"""MAGI-1 in plain PyTorch: chunk-wise autoregressive video diffusion (Sand AI, arXiv:2505.13211)."""
