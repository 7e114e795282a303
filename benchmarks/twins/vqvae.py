"""minigen/train/vqvae.py in PyTorch, with the quantiser of running means."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss

from benchmarks.harness.step import Step, rate
from benchmarks.twins.base import Single, Tensors
from minigen.data.loader import Loader
from minigen.train.vqvae import TO_BYTES, Epoch


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(128, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 128, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Quantizer(nn.Module):
    def __init__(self, num_codes: int, dim: int, beta: float, decay: float, eps: float, revive_after: int) -> None:
        super().__init__()
        self.beta, self.decay, self.eps, self.revive_after = beta, decay, eps, revive_after
        self.register_buffer("weight", torch.zeros(num_codes, dim))
        self.register_buffer("unused", torch.zeros(num_codes, dtype=torch.int64))
        self.register_buffer("began", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors = z.permute(0, 2, 3, 1)
        flat = vectors.flatten(0, 2)
        index = torch.cdist(flat.detach(), self.weight).argmin(1)
        q = self.weight[index]
        out = (flat + (q - flat).detach()).view_as(vectors).permute(0, 3, 1, 2)
        loss = mse_loss(flat, q) * self.beta
        self.learn(flat.detach(), index)
        return out, loss, index

    @torch.no_grad()
    def learn(self, z: torch.Tensor, index: torch.Tensor) -> None:
        """Nothing here depends on how many codes are dead, so that nobody waits for the device to say it."""
        number = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(z[:, 0]))
        self.counts += (1 - self.decay) * (number - self.counts)
        self.sums += (1 - self.decay) * (torch.zeros_like(self.sums).index_add_(0, index, z) - self.sums)
        total = self.counts.sum()
        smoothed = (self.counts + self.eps) / (total + len(self.weight) * self.eps) * total
        self.weight.copy_(self.sums / smoothed[:, None])
        self.unused.copy_(torch.where(number > 0, 0, self.unused + 1))
        dead = self.unused >= self.revive_after
        vectors = z[torch.randint(len(z), dead.shape, device=z.device)]
        self.weight.copy_(torch.where(dead[:, None], vectors, self.weight))
        self.sums.copy_(torch.where(dead[:, None], vectors, self.sums))
        self.counts.masked_fill_(dead, 1.0)
        self.unused.masked_fill_(dead, 0)


class Net(nn.Module):
    def __init__(self, channels: int, dim: int, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 64, 4, 2, 1), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, 1, 1),
            Residual(), Residual(), nn.ReLU(), nn.Conv2d(128, dim, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, 128, 1), Residual(), Residual(), nn.ReLU(), nn.Conv2d(128, 128, 3, 1, 1), nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, channels, 4, 2, 1),
        )  # fmt: skip
        self.quantizer = quantizer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images -> what became of them, the quantiser's loss, the codes."""
        q, loss, index = self.quantizer(self.encoder(x))
        return self.decoder(q), loss, index


class VQVAE(Single):
    def __init__(self, step: Step, device: str = "cpu") -> None:
        trainer = step.trainer
        c, q = trainer.config, trainer.model.quantizer
        quantizer = Quantizer(q.num_codes, q.dim, q.beta, q.decay, q.eps, q.revive_after)
        super().__init__(step, Net(trainer.info.shape[0], c.dim, quantizer), rate(trainer), device)
        self.images = trainer.loader.images
        self.load(c.seed)
        self.epoch = Epoch(c.num_codes)

    def load(self, seed: int) -> None:
        """Take the images in the order of this seed."""
        self.loader = Loader(self.images, None, self.config.batch_size, seed)

    def seed(self, noise_seed: int) -> None:
        self.load(noise_seed)  # there is no noise

    def batch(self) -> tuple[torch.Tensor, ...]:
        self.next_rate()
        return (torch.from_numpy(self.loader.next()[0]),)

    def step(self, x: torch.Tensor) -> Tensors:
        y, loss, index = self.net(x)
        mse = mse_loss(y, x)
        self.update(mse + loss)
        return {"mse": mse, "quantizer": loss, "index": index}

    def figures(self, found: Tensors) -> dict[str, float]:
        mse = found["mse"].item()
        self.epoch.count(self.loader.epoch, found["index"].cpu().numpy(), mse * TO_BYTES, 0)
        return {"mse": mse, "quantizer": found["quantizer"].item(), **self.epoch.figures()}
