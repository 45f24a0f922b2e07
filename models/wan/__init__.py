"""Parts that models built on Wan 2.1 share: blocks, text, autoencoder, checkpoints."""
