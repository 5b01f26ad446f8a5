"""The TensorBoard backend: event files, written with tensorboardX."""
