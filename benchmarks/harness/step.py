"""What a file in `benchmarks/steps/` holds: the training step that users run, and its twin in PyTorch.

    build() -> Step                    a fresh trainer on fixed random data, in float32, batch of 64
    twin(step, device) -> Twin         the same in PyTorch, with copies of its weights

`Step.multiply_adds` counts the products that a step cannot do without: layer by layer, only the gradients that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minigen import nn, random
from minigen.autograd import no_grad
from minigen.data.dataset import Dataset
from minigen.data.loader import Loader
from minigen.data.text import Text
from minigen.tensor import Tensor
from minigen.train import run
from minigen.train.config import BaseRecipe

WEIGHT_SEED, DATA_SEED = 0, 0
IMAGES, CHARACTERS = 1024, 100_000


@dataclass(frozen=True)
class Step:
    run: Callable[[], dict[str, float]]  # one whole step of training; returns the named losses
    models: dict[str, Any]  # what it trains, by name
    optimisers: dict[str, Any]  # of each model, in the same order: Adam
    multiply_adds: Callable[[], int]  # in one step; counted on request, because that takes a forward pass
    trainer: Any = None
    seed: Callable[[int], None] = lambda seed: None  # the data in another order


class Twin(Protocol):
    """The same step in PyTorch: the same losses by name, the same models as modules with the same names in them."""

    modules: dict[str, Any]
    optimisers: dict[str, Any]

    def seed(self, noise_seed: int) -> None: ...

    def run(self) -> dict[str, float]: ...


def rate(trainer: Any) -> Callable[[int], float]:
    """The learning rate of a trainer with one optimiser, at each step, counted from 0."""
    return lambda t: trainer.config.lr * trainer.opt.schedule(t)


def build_trainer(config: BaseRecipe, shape: Sequence[int]) -> Any:
    """minigen's own trainer for the recipe, on `IMAGES` random images of `shape` (C, H, W)."""
    images = np.random.default_rng(DATA_SEED).integers(0, 256, (IMAGES, *shape), np.uint8)
    return _build(config, Dataset("random", images, None, (), images[:0], None, "drawn at random"))


def reorder(trainer: Any, seed: int) -> None:
    """Give a trainer its images in the order of this seed."""
    trainer.loader = Loader(trainer.loader.images, None, trainer.config.batch_size, seed)


def build_text_trainer(config: BaseRecipe, vocabulary: int) -> Any:
    """The same on `CHARACTERS` random ones, of which `vocabulary` are different."""
    drawn = np.random.default_rng(DATA_SEED).integers(0, vocabulary, CHARACTERS)
    return _build(config, Text("random", "".join(chr(ord(" ") + int(i)) for i in drawn)))


def _build(config: BaseRecipe, data: Any) -> Any:
    info = run.data_info(data)
    random.seed(WEIGHT_SEED)
    config.resolve(info)
    return config.build(info, data)


@dataclass(frozen=True)
class Products:
    """Multiply-adds of one forward pass of a network: of all layers, of the first, and of the last.

    A backward pass takes `all` for the gradients of the weights, and `all` again for those of the layers' inputs; less
    `first` where nobody asks for the gradient of the network's input.
    """

    all: int
    first: int
    last: int


def scan_products(layer: Any, steps: int, batch: int) -> Products:
    """Those of a recurrent layer: `first` is the input's part of the gates, W x, and `last` the state's, U h."""
    x, h = (steps * batch * p.size for p in (layer.weight_ih_l0, layer.weight_hh_l0))
    return Products(x + h, x, h)


def products(layers: Sequence[Any], batch: int, shape: Sequence[int]) -> Products:
    """Counted by sending one zero example of `shape` through the layers."""
    counts = []
    nn.set_training(layers, False)  # leave running statistics as they are
    with no_grad():
        x = Tensor(np.zeros((1, *shape), np.float32))
        for layer in layers:
            y = layer(x)
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                # Each weight meets each position once: of the output, or, transposed, of the input.
                positions = x.shape[2:] if isinstance(layer, nn.ConvTranspose2d) else y.shape[2:]
                counts.append(batch * layer.weight.size * int(np.prod(positions)))
            x = y
    nn.set_training(layers, True)
    return Products(sum(counts), counts[0], counts[-1])
