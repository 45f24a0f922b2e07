"""The memory of the parts beside the transformer: the Wan autoencoder and the text encoder."""

STOCK = 96  # base channels of the stock Wan autoencoder
AUTOENCODER = 0.51e9  # bytes of its weights, float32
DECODING = 20.2e3  # bytes that it needs beside them, per pixel of a frame; measured at 544x960 and 720x1280
ENCODER = 11.4e9  # bytes of the stock text encoder, bfloat16; it leaves the device before a video begins
ENCODER_WIDTH = 4096  # by which it is known
ITEMSIZE = {"fp32": 4, "bf16": 2}
