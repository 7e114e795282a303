"""Layers, initial weights, and walking a model's parameters. No base class: any object with Tensors in it is a model."""

from minigen.nn import init
from minigen.nn.layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Unflatten,
)
from minigen.nn.recurrent import CELLS, GRU, LSTM, RNN
from minigen.nn.spectral import SpectralNorm
from minigen.nn.vq import QUANTIZERS, EMAVectorQuantizer, RotationVectorQuantizer, VectorQuantizer
from minigen.nn.walk import (
    load_state_dict,
    named_parameters,
    parameters,
    set_training,
    state_dict,
    walk,
)

__all__ = [
    "CELLS", "GRU", "LSTM", "QUANTIZERS", "RNN", "BatchNorm1d", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "Dropout",
    "EMAVectorQuantizer", "Embedding", "Flatten", "LayerNorm", "LeakyReLU", "Linear", "ReLU", "RotationVectorQuantizer",
    "Sequential", "Sigmoid", "SpectralNorm", "Tanh", "Unflatten", "VectorQuantizer", "init", "load_state_dict",
    "named_parameters", "parameters", "set_training", "state_dict", "walk",
]  # fmt: skip
