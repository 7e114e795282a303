"""Training: one page per objective, and the loop, checkpoints and pictures they share."""

from minigen.train.config import DataInfo, Recipe
from minigen.train.gan import GAN
from minigen.train.loop import train
from minigen.train.wgan_gp import WGANGP

RECIPES: dict[str, type[Recipe]] = {r.name: r for r in (GAN, WGANGP)}

__all__ = ["GAN", "RECIPES", "WGANGP", "DataInfo", "Recipe", "train"]
