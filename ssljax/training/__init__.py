"""The state of training, its step, and the devices and processes that run it."""
