"""minigen/train/vqvae.py in PyTorch, with the quantiser of running means."""

from __future__ import annotations

import torch
from minigen.kernels import threads
from torch import nn
from torch.nn.functional import mse_loss

from benchmarks.harness.step import Step
from minigen.data.loader import Loader
from minigen.nn import state_dict
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
        number = torch.bincount(index, minlength=len(self.weight)).float()
        self.counts += (1 - self.decay) * (number - self.counts)
        self.sums += (1 - self.decay) * (torch.zeros_like(self.sums).index_add_(0, index, z) - self.sums)
        total = self.counts.sum()
        smoothed = (self.counts + self.eps) / (total + len(self.weight) * self.eps) * total
        self.weight.copy_(self.sums / smoothed[:, None])
        self.unused.copy_(torch.where(number > 0, 0, self.unused + 1))
        dead = (self.unused >= self.revive_after).nonzero()[:, 0]
        if len(dead):
            vectors = z[torch.randint(len(z), (len(dead),))]
            self.weight[dead], self.sums[dead], self.counts[dead], self.unused[dead] = vectors, vectors, 1.0, 0


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


class VQVAE:
    def __init__(self, step: Step) -> None:
        torch.set_num_threads(threads.get_num_threads())
        trainer = step.trainer
        c, q = trainer.config, trainer.model.quantizer
        quantizer = Quantizer(q.num_codes, q.dim, q.beta, q.decay, q.eps, q.revive_after)
        self.net = Net(trainer.info.shape[0], c.dim, quantizer)
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(trainer.model).items()})
        self.params = list(self.net.parameters())
        self.opt = torch.optim.Adam(self.params, c.lr)
        self.modules, self.optimisers = {"model": self.net}, {"model": self.opt}
        self.batch_size, self.images = c.batch_size, trainer.loader.images
        self.seed(c.seed)
        self.epoch = Epoch(c.num_codes)

    def seed(self, noise_seed: int) -> None:
        """There is no noise: take the images in the order of this seed."""
        self.loader = Loader(self.images, None, self.batch_size, noise_seed)

    def run(self) -> dict[str, float]:
        x = torch.from_numpy(self.loader.next()[0])
        q, loss, index = self.net.quantizer(self.net.encoder(x))
        mse = mse_loss(self.net.decoder(q), x)
        self.opt.zero_grad()
        (mse + loss).backward()
        self.opt.step()
        self.epoch.count(self.loader.epoch, index.numpy(), mse.item() * TO_BYTES, 0)
        return {"mse": mse.item(), "quantizer": loss.item(), **self.epoch.figures()}
