"""Training: one page per objective, and the loop, checkpoints and pictures they share."""

from minigen.train.char_rnn import CharRNN
from minigen.train.config import BaseRecipe, DataInfo, Recipe
from minigen.train.gan import GAN
from minigen.train.loop import train
from minigen.train.pixel_rnn import PixelRNN
from minigen.train.seq2seq import Seq2Seq
from minigen.train.text_gan import TextGAN
from minigen.train.vae import VAE
from minigen.train.vq_prior import VQPrior
from minigen.train.vqvae import VQVAE
from minigen.train.wgan_gp import WGANGP

RECIPES: dict[str, type[BaseRecipe]] = {
    r.name: r for r in (GAN, WGANGP, PixelRNN, CharRNN, TextGAN, VQVAE, VAE, VQPrior, Seq2Seq)
}

__all__ = [
    "GAN",
    "RECIPES",
    "VAE",
    "VQVAE",
    "WGANGP",
    "BaseRecipe",
    "CharRNN",
    "DataInfo",
    "PixelRNN",
    "Recipe",
    "Seq2Seq",
    "TextGAN",
    "VQPrior",
    "train",
]  # fmt: skip
