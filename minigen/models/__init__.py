"""Networks: layers wired together, nothing else."""

from minigen.models.gan import Discriminator, Generator, dcgan_discriminator, dcgan_generator, mlp_discriminator, mlp_generator

__all__ = [
    "Discriminator", "Generator", "dcgan_discriminator", "dcgan_generator", "mlp_discriminator", "mlp_generator",
]  # fmt: skip
