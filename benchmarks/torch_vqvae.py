"""A plain PyTorch implementation of the paper's CIFAR-10 model, for training.py."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.paper_model import Architecture, random_batch
from benchmarks.timing import Run


class ResidualBlock(nn.Module):
    """ReLU, 3x3, ReLU, 1x1, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x):
        """Map [B, channels, h, w] to the same shape."""
        return x + self.layers(x)


class VQVAE(nn.Module):
    """Encoder, codebooks and decoder of section 4.1; calling it returns the loss."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        channels, features = sizes.channels, sizes.num_codebooks * sizes.dim
        self.categorical = sizes.likelihood == "categorical"
        self.encoder = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 4, stride=2, padding=1),
            ResidualBlock(channels),
            ResidualBlock(channels),
            nn.ReLU(),
            nn.Conv2d(channels, features, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(features, channels, 3, padding=1),
            ResidualBlock(channels),
            ResidualBlock(channels),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, sizes.outputs, 4, stride=2, padding=1),
        )
        codebooks = torch.randn(sizes.num_codebooks, sizes.num_codes, sizes.dim)
        self.codebooks = nn.Parameter(codebooks)

    def forward(self, images):
        """Return equation 3 of images [B, 3, H, W] uint8."""
        x = images.float() / 127.5 - 1
        z_e = self.encoder(x)
        z_q = self.quantize(z_e)
        quantization = F.mse_loss(z_q, z_e.detach())
        quantization = quantization + 0.25 * F.mse_loss(z_e, z_q.detach())
        outputs = self.decoder(z_e + (z_q - z_e).detach())
        if not self.categorical:
            return F.mse_loss(outputs, x) + quantization
        logits = outputs.unflatten(1, (3, 256)).transpose(1, 2)
        return F.cross_entropy(logits, images.long()) + quantization

    def quantize(self, z_e):
        """Return the nearest codes of z_e [B, features, h, w]."""
        batch, _, height, width = z_e.shape
        num_codebooks, _, dim = self.codebooks.shape
        cells = z_e.permute(0, 2, 3, 1).reshape(-1, num_codebooks, dim)
        with torch.no_grad():
            dots = torch.einsum("ngd,gkd->ngk", cells, self.codebooks)
            codes = (self.codebooks.square().sum(-1) - 2 * dots).argmin(-1)
        chosen = self.codebooks[torch.arange(num_codebooks), codes]
        return chosen.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def training_step(
    sizes: Architecture,
    *,
    channels_last: bool = False,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Run:
    """Return a function that performs one step of Adam, on a GPU if available.

    PyTorch's two memory layouts give the same numbers; which one is faster depends on
    the processor. With `bfloat16`, autocast chooses the operations that run in it.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = VQVAE(sizes).to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    batch = torch.from_numpy(random_batch(sizes)["image"]).permute(0, 3, 1, 2)
    batch = batch.to(device).contiguous(memory_format=layout)
    loss = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            value = loss(batch)
        value.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step
