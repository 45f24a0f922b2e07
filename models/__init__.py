"""One adapter per backbone behind one protocol, and the tiny presets with their training."""
