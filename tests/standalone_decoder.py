"""Decode files of lof without lof: only CompressAI, PyTorch, safetensors and NumPy.

    python standalone_decoder.py FILE WEIGHTS.safetensors OUTPUT.npy [FILE WEIGHTS OUTPUT ...]

Written from three descriptions: of the container (the docstring of ``lof/containers/lof.py``), of the digest of its
symbols (``lof/containers/digest.py``) and, for files that do not start with its magic, of CompressAI's
``examples/codec.py``. The output is (H, W, 3) uint8, RGB.
"""

import hashlib
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


def watch(model, seen):
    """Let ``model`` note in ``seen`` the symbols that it decodes, just before it adds their means."""
    dequantize = type(model).dequantize

    def noting(symbols, means=None, dtype=torch.float):
        seen.append(symbols.clone())  # CompressAI adds the means in place
        return dequantize(symbols, means, dtype)

    model.dequantize = noting


def symbols_digest(net, seen):
    """The first 4 bytes of the SHA-256 over all symbols, in the order in which they are decoded."""
    digest = hashlib.sha256()
    for name, parts in seen.items():
        symbols = parts[0]
        if len(parts) > 1:  # one place after the other, row by row
            width = seen["z"][0].shape[-1] * 4
            symbols = torch.stack(parts, -1).reshape(1, net.M, -1, width)
        digest.update(bytes([len(name)]) + name.encode() + struct.pack("<3I", *symbols.shape[1:]))
        digest.update(symbols.numpy().astype("<i4").tobytes())
    return digest.digest()[:4]


def decode_container(data, weights):
    """The image in a lof file."""
    assert data[:4] == b"\xc1of\x02", "not a lof file of version 2"
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"), "damaged"
    codec, at = varint(data, 4)
    _, at = varint(data, at)  # the quality
    count = (data[at] & 15) + 1
    digest = data[at + 5 : at + 9]  # behind the flags and the fingerprint of the weights
    at += 9
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
    seen = {"z": [], "y": []} if count == 2 else {"y": []}
    watch(net.entropy_bottleneck, seen["z" if count == 2 else "y"])
    if count == 2:
        watch(net.gaussian_conditional, seen["y"])
    with torch.no_grad():
        x = net.decompress(strings, (padded_height // stride, padded_width // stride))["x_hat"][0]
    assert symbols_digest(net, seen) == digest, "other symbols than were written"
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
