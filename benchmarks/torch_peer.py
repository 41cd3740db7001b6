"""FixMatch in eager PyTorch on CIFAR-10: a peer with the settings of one of our runs.

    <python with torch> benchmarks/torch_peer.py --run=runs/cifar10_short/fixmatch/1 \\
      --data=runs/cifar10_short/cifar10.npz --workdir=runs/cifar10_short/torch/1

It needs PyTorch, NumPy and Pillow alone, and trains on a CPU or, with `--device=cuda`, on a GPU. It
is written in the manner of the well-known eager implementations: a network of modules, Pillow's
operations on one image at a time, one joint pass. Settings are those of the run's `config.json`,
and the labelled and unlabelled images those of its `split.json`. The same command continues an
interrupted run, after its last evaluation.

`metrics.jsonl` has a row per evaluation: `step`; `seconds` of training so far, without evaluations;
`images`, the labelled images and views so far; `loss/total` of the last step, in nats; and the
shares of the test images that are classified correctly, `test/accuracy_ema` and
`test/accuracy_raw`, 0..1.

Equal to ours: the network, its initial distribution and its BatchNorm momentum; the loss; the batch
and the lengths; Nesterov SGD, its schedule, and a decay of kernels alone; the average of the
weights, which is evaluated with the raw BatchNorm statistics; the pixels, and the operations and
levels of the views; an epoch is one permutation of the images.

Different: all random numbers; the variances that BatchNorm keeps, which PyTorch estimates without
bias; and Pillow's operations on images without an alpha channel, so that what they leave empty is
grey at once.
"""

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageEnhance, ImageOps
from torch import nn

GREY = (127, 127, 127)


class Data(NamedTuple):
    """The images of a run, uint8 `[N, 32, 32, 3]`, and labels `[N]` from 0."""

    labeled: np.ndarray
    labels: np.ndarray
    unlabeled: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class Block(nn.Module):
    """A pre-activation residual block, `[N, c_in, H, W]` -> `[N, c_out, H/stride, W/stride]`."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, activate_shortcut: bool, momentum: float
    ):
        super().__init__()
        self.bn1, self.bn2 = batch_norm(c_in, momentum), batch_norm(c_out, momentum)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1)
        self.short = nn.Conv2d(c_in, c_out, 1, stride) if c_in != c_out else None
        self.stride, self.activate_shortcut = stride, activate_shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the block."""
        y = F.leaky_relu(self.bn1(x), 0.1)
        x = y if self.activate_shortcut else x
        y = y if self.stride == 1 else F.pad(y, (0, 1, 0, 1))  # TensorFlow's "SAME", as ours
        y = self.conv2(F.leaky_relu(self.bn2(self.conv1(y)), 0.1))
        return y + (self.short(x) if self.short is not None else x)


class WideResNet(nn.Module):
    """Images `[N, 3, 32, 32]` in [-1, 1] -> logits `[N, 10]`, as `ssljax/models/wide_resnet.py`.

    Args:
      filters: channels of the first scale, doubled at each further one.
      repeat: residual blocks per scale.
      momentum: of the running BatchNorm statistics, the share that stays per step.
    """

    def __init__(self, filters: int, repeat: int, momentum: float):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1)]
        channels = 16
        for scale in range(3):
            for block in range(repeat):
                stride, first = 2 if scale and not block else 1, scale == block == 0
                layers.append(Block(channels, filters << scale, stride, first, momentum))
                channels = filters << scale
        self.body = nn.Sequential(*layers)
        self.bn, self.head = batch_norm(channels, momentum), nn.Linear(channels, 10)
        self.apply(initialize)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the logits."""
        return self.head(F.leaky_relu(self.bn(self.body(x)), 0.1).mean((2, 3)))


def batch_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """BatchNorm whose `momentum` is the share of the statistics that stays, as in our configs."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=1 - momentum)


def initialize(module: nn.Module) -> None:
    """Draws kernels as `ssljax/models/layers.py`, and sets biases to 0."""
    if isinstance(module, nn.Conv2d):  # N(0, √(2 / (k · k · c_out)))
        size = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2 / size))
    elif isinstance(module, nn.Linear):  # of this deviation once it is cut at two of its own
        std = math.sqrt(2 / (module.in_features + module.out_features)) / 0.87962566
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.zeros_(module.bias)


def weak(image: np.ndarray, draw: random.Random) -> np.ndarray:
    """Mirrors half of the images, and shifts by up to 4 pixels; uint8 `[32, 32, 3]`."""
    if draw.random() < 0.5:
        image = image[:, ::-1]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    i, j = draw.randint(0, 8), draw.randint(0, 8)
    return np.ascontiguousarray(padded[i : i + 32, j : j + 32])


def strong(image: np.ndarray, draw: random.Random) -> np.ndarray:
    """A weak view, FixMatch's RandAugment and a Cutout of 16 pixels; uint8 `[32, 32, 3]`."""
    picture = Image.fromarray(weak(image, draw))
    for _ in range(2):
        operation = draw.choice(OPERATIONS)
        level, sign = draw.randint(1, 9), draw.choice([-1, 1])
        if draw.random() < 0.5:
            picture = operation(picture, level, sign)
    pixels = np.array(picture)
    i, j = draw.randint(0, 31), draw.randint(0, 31)
    pixels[max(0, i - 8) : i + 8, max(0, j - 8) : j + 8] = GREY
    return pixels


def enhanced(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, int, int], Image.Image]:
    """An operation of `ImageEnhance` with a factor from 0.28 to 1.72."""
    return lambda picture, level, sign: kind(picture).enhance(0.18 * level + 0.1)


def affine(
    matrix: Callable[[int], Sequence[float]],
) -> Callable[[Image.Image, int, int], Image.Image]:
    """An operation that moves pixels; `matrix` is of the signed level, from the output's pixels to
    the input's."""
    return lambda picture, level, sign: picture.transform(
        picture.size, Image.Transform.AFFINE, matrix(sign * level), fillcolor=GREY
    )


# (picture, level from 1 to 9, sign) -> picture.
OPERATIONS: Sequence[Callable[[Image.Image, int, int], Image.Image]] = (
    lambda picture, level, sign: picture,
    lambda picture, level, sign: ImageOps.autocontrast(picture),
    lambda picture, level, sign: ImageOps.equalize(picture),
    lambda picture, level, sign: picture.rotate(sign * 3 * level, fillcolor=GREY),
    lambda picture, level, sign: ImageOps.posterize(picture, 4 - int(0.4 * level)),
    lambda picture, level, sign: ImageOps.solarize(picture, 256 - int(25.6 * level)),
    enhanced(ImageEnhance.Color),
    enhanced(ImageEnhance.Contrast),
    enhanced(ImageEnhance.Brightness),
    enhanced(ImageEnhance.Sharpness),
    affine(lambda v: (1, 0.03 * v, 0, 0, 1, 0)),
    affine(lambda v: (1, 0, 0, 0.03 * v, 1, 0)),
    affine(lambda v: (1, 0, v, 0, 1, 0)),
    affine(lambda v: (1, 0, 0, 0, 1, v)),
)


def tensor(images: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """uint8 images `[32, 32, 3]` -> float32 `[N, 3, 32, 32]` in [-1, 1], channels innermost."""
    pixels = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1


def places(seed: int, size: int, begin: int, count: int) -> Iterator[int]:
    """Yields the images at `count` places of an endless order from `begin` on, of which each
    `size` places are a permutation."""
    for place in range(begin, begin + count):
        epoch, within = divmod(place, size)
        yield int(permutation(seed, size, epoch)[within])


@lru_cache(maxsize=4)
def permutation(seed: int, size: int, epoch: int) -> np.ndarray:
    """The order of an epoch, `[size]`; those of the last few epochs are kept."""
    return np.random.default_rng((seed, size, epoch)).permutation(size)


def read(data: Path, run: Path) -> Data:
    """Reads the pixels that `benchmarks/cifar10_short.py` writes, and the split of our run."""
    arrays, split = np.load(data), json.loads((run / "split.json").read_text())
    images, labels = arrays["train_images"], arrays["train_labels"]
    labeled = split["labeled"]
    test = arrays["test_images"], arrays["test_labels"]
    return Data(images[labeled], labels[labeled], images[split["unlabeled"]], *test)


def optimizer_of(net: nn.Module, knobs: dict[str, Any]) -> torch.optim.SGD:
    """Nesterov SGD whose decay is of kernels alone, which have more than one axis."""
    parameters = list(net.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": knobs["weight_decay"]},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, knobs["lr"], knobs["momentum"], nesterov=True)


class Peer:
    """The weights, their average and the optimizer of a run, and what it has trained."""

    def __init__(self, config: dict[str, Any], data: Data, device: torch.device):
        torch.manual_seed(config["seed"])
        model = config["model_args"]
        net = WideResNet(model["filters"], model["repeat"], model["batch_norm_momentum"])
        # The faster layout on CPUs.
        self.net = net.to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net)
        self.optimizer = optimizer_of(self.net, config["optimizer"])
        self.config, self.data, self.device = config, data, device
        self.step, self.seconds, self.loss = 0, 0.0, 0.0

    @property
    def images(self) -> int:
        """The labelled images and views that a step has, as in our `environment.json`."""
        return self.config["batch_size"] * (1 + 2 * self.config["uratio"])

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The images of the next step, `[B + 2 · M, 3, 32, 32]`: labelled ones, weak views, strong
        views; and labels `[B]`. Both depend on the seed and the step alone."""
        seed, size = self.config["seed"], self.config["batch_size"]
        draw = random.Random(f"{seed} {self.step}")
        labeled = [*places(seed, len(self.data.labeled), self.step * size, size)]
        more = size * self.config["uratio"]
        unlabeled = [*places(seed, len(self.data.unlabeled), self.step * more, more)]
        images = [weak(self.data.labeled[k], draw) for k in labeled]
        for view in (weak, strong):
            images += [view(self.data.unlabeled[k], draw) for k in unlabeled]
        labels = torch.from_numpy(self.data.labels[labeled])
        return tensor(images, self.device), labels.to(self.device)

    def train_step(self) -> None:
        """Updates the weights and their average."""
        start = time.perf_counter()
        lr = self.config["optimizer"]["lr"] * schedule(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images, labels = self.batch()
        threshold = self.config["method_args"].get("threshold", 0.95)
        loss = fixmatch_loss(self.net(images), labels, threshold)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(value, 1 - self.config["ema_decay"])
            for statistic, value in zip(self.ema.buffers(), self.net.buffers(), strict=True):
                statistic.copy_(value)
        self.step, self.loss = self.step + 1, loss.item()
        self.seconds += time.perf_counter() - start

    def row(self) -> dict[str, float]:
        """Evaluates; the row of `metrics.jsonl`."""
        accuracies = {
            f"test/accuracy_{name}": accuracy(net, self.data.test_images, self.data.test_labels)
            for name, net in (("ema", self.ema), ("raw", self.net))
        }
        images = self.step * self.images
        now = {"step": self.step, "seconds": round(self.seconds, 3), "images": images}
        return {**now, "loss/total": self.loss, **accuracies}

    def save(self, path: Path) -> None:
        """Writes a checkpoint, all of it or nothing."""
        partial = path.with_suffix(".partial")
        parts = {name: getattr(self, name).state_dict() for name in ("net", "ema", "optimizer")}
        torch.save({**parts, "step": self.step, "seconds": self.seconds}, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continues from a checkpoint."""
        saved = torch.load(path, weights_only=True, map_location=self.device)
        for name in ("net", "ema", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        self.step, self.seconds = saved["step"], saved["seconds"]


def schedule(step: int, config: dict[str, Any]) -> float:
    """FixMatch's factor of the learning rate, cos(7πk / 16K), after k of K steps."""
    level = config["optimizer"]["cosine_level"]
    return math.cos(level * math.pi * step / (16 * config["num_steps"]))


def fixmatch_loss(logits: torch.Tensor, labels: torch.Tensor, threshold: float) -> torch.Tensor:
    """The loss in nats of logits `[B + 2 · M, 10]` in the order of `Peer.batch`, labels `[B]`.

    Args:
      threshold: least probability of a guess that counts, 0..1.
    """
    weak_logits, strong_logits = logits[len(labels) :].chunk(2)
    probability, guess = weak_logits.detach().softmax(-1).max(-1)
    unlabeled = F.cross_entropy(strong_logits, guess, reduction="none")
    mask = (probability >= threshold).float()
    return F.cross_entropy(logits[: len(labels)], labels) + (mask * unlabeled).mean()


@torch.no_grad()
def accuracy(net: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images, uint8 `[N, 32, 32, 3]`, that are classified correctly, 0..1."""
    net.eval()
    right, device = 0, next(net.parameters()).device
    for i in range(0, len(images), 512):
        predicted = net(tensor(list(images[i : i + 512]), device)).argmax(-1).cpu().numpy()
        right += int((predicted == labels[i : i + 512]).sum())
    net.train()
    return right / len(images)


def require_known(config: dict[str, Any]) -> None:
    """Checks that the config is of what is built here.

    Raises:
      ValueError: it is not; the message names the knob.
    """
    optimizer, arguments = config["optimizer"], config["method_args"]
    checked: Sequence[tuple[str, Any, Any]] = (
        ("method", config["method"], "fixmatch"),
        ("method_args.weak_pass", arguments.get("weak_pass", "joint"), "joint"),
        ("method_args.unlabeled_weight", arguments.get("unlabeled_weight", 1.0), 1.0),
        ("model", config["model"], "wide_resnet"),
        ("optimizer.name", optimizer["name"], "sgd"),
        ("optimizer.schedule", optimizer["schedule"], "cosine"),
        ("augment.weak", config["augment"]["weak"], "weak_cifar"),
        ("augment.strong", config["augment"]["strong"], "randaugment"),
        ("optimizer.warmup_steps", optimizer["warmup_steps"], 0),
        ("optimizer.clip_norm", optimizer["clip_norm"], 0),
        ("augment.recipe", config["augment"]["recipe"], "cifar"),
    )
    for name, value, allowed in checked:
        if value != allowed:
            raise ValueError(f"{name} is {value}; allowed: {allowed}")


def train(peer: Peer, workdir: Path, last: int) -> None:
    """Trains to the step `last`, and writes `metrics.jsonl` and a checkpoint."""
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = workdir / "checkpoint.pt", workdir / "metrics.jsonl"
    if checkpoint.exists():
        peer.load(checkpoint)
    rows = metrics.read_text().splitlines() if metrics.exists() else []
    rows = [row for row in rows if json.loads(row)["step"] <= peer.step]
    every = peer.config["eval_every"]
    while peer.step < last:
        peer.train_step()
        if peer.step % every == 0 or peer.step == last:
            rows.append(json.dumps(peer.row()))
            metrics.write_text("".join(f"{row}\n" for row in rows))
            peer.save(checkpoint)
            print(rows[-1], flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, help="directory of a run of ours")
    parser.add_argument("--data", type=Path, required=True, help="an .npz with the pixels")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, help="in place of the run's")
    parser.add_argument("--until", type=int, help="stop after this step, to time the first ones")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    config = json.loads((options.run / "config.json").read_text())
    require_known(config)
    if options.seed is not None:
        config["seed"] = options.seed
    peer = Peer(config, read(options.data, options.run), options.device)
    train(peer, options.workdir, options.until or config["num_steps"])


if __name__ == "__main__":
    main()
