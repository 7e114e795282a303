"""Networks: layers wired together, nothing else."""

from minigen.models.gan import Discriminator, Generator, dcgan_discriminator, dcgan_generator, mlp_discriminator, mlp_generator
from minigen.models.recurrent_gan import RecurrentGenerator, SequenceCritic, mirrored_discriminator

__all__ = [
    "Discriminator", "Generator", "RecurrentGenerator", "SequenceCritic", "dcgan_discriminator", "dcgan_generator",
    "mirrored_discriminator", "mlp_discriminator", "mlp_generator",
]  # fmt: skip
