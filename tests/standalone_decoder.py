"""Decode files of lof without lof: only CompressAI, PyTorch, safetensors and NumPy.

    python standalone_decoder.py FILE WEIGHTS.safetensors OUTPUT.npy [FILE WEIGHTS OUTPUT ...]

Written from two descriptions: of the container (the docstring of ``lof/containers/lof.py``) and, for files that do not
start with its magic, of CompressAI's ``examples/codec.py``. The output is (H, W, 3) uint8, RGB.
"""

import struct
import sys
import zlib
from functools import cache

import numpy as np
import torch
from compressai.models import (
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from compressai.zoo import models
from safetensors.torch import load_file

NETWORKS = {
    1: MeanScaleHyperprior,  # mean-scale-96
    2: FactorizedPrior,  # bmshj2018-factorized
    3: ScaleHyperprior,  # bmshj2018-hyperprior
    4: MeanScaleHyperprior,  # mbt2018-mean
    5: JointAutoregressiveHierarchicalPriors,  # mbt2018
    15: MeanScaleHyperprior,  # tiny
}
ZOO_NETWORKS = {
    "bmshj2018-factorized": FactorizedPrior,
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
    "mbt2018": JointAutoregressiveHierarchicalPriors,
}


@cache
def load_network(network, weights):
    """A network with these weights; what is stored in float16 is computed in float32."""
    state = {name: t.float() if t.is_floating_point() else t for name, t in load_file(weights).items()}
    return network.from_state_dict(state).eval()


def varint(data, at):
    """The LEB128 number at ``at``, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def decode_container(data, weights):
    """The image in a lof file."""
    assert data[:4] == b"\xc1of\x01", "not a lof file of version 1"
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"), "damaged"
    codec, at = varint(data, 4)
    count = (data[at + 1] & 15) + 1  # data[at] is the quality
    at += 6  # quality, flags, fingerprint of the weights
    height, at = varint(data, at)
    width, at = varint(data, at)
    strings = []
    for _ in range(count):
        size, at = varint(data, at)
        strings.append([data[at : at + size]])
        at += size

    padded_height, padded_width = -(-height // 64) * 64, -(-width // 64) * 64
    stride = 16 if codec == 2 else 64
    net = load_network(NETWORKS[codec], weights)
    with torch.no_grad():
        x = net.decompress(strings, (padded_height // stride, padded_width // stride))["x_hat"][0]
    top, left = (padded_height - height) // 2, (padded_width - width) // 2
    x = x[:, top : top + height, left : left + width]
    return (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def decode_compressai(data, weights):
    """The image in a file of ``examples/codec.py``."""
    model, _, height, width, _, *shape, count = struct.unpack_from(">BBIIBIII", data)
    at = struct.calcsize(">BBIIBIII")
    strings = []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        strings.append([data[at + 4 : at + 4 + size]])
        at += 4 + size

    net = load_network(ZOO_NETWORKS[list(models)[model]], weights)
    with torch.no_grad():
        x = net.decompress(strings, shape)["x_hat"]
    left, top = (x.size(3) - width) // 2, (x.size(2) - height) // 2
    margins = (-left, -(x.size(3) - width - left), -top, -(x.size(2) - height - top))
    x = torch.nn.functional.pad(x, margins, mode="constant", value=0)
    return x.clamp_(0, 1).squeeze(0).mul(255).byte().permute(1, 2, 0).numpy()  # as ToPILImage does


def main(arguments):
    for file, weights, output in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        with open(file, "rb") as opened:
            data = opened.read()
        decode = decode_container if data.startswith(b"\xc1of") else decode_compressai
        np.save(output, decode(data, weights))


if __name__ == "__main__":
    main(sys.argv[1:])
