"""The timed steps once more, in PyTorch: the way one would write them there."""
