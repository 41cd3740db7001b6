"""Image augmentation on the device, batched."""
