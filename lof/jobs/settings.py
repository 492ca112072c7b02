"""What a job does to every image: plain data that travels to worker processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lof.containers import container, container_for
from lof.errors import UsageError
from lof.pictures.formats import require_formats
from lof.pictures.region import Regions
from lof.profiles import Profile
from lof.results import Target, checked_lambda

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.targets import Ladder


@dataclass(frozen=True)
class JobSettings:
    """Everything that decides the bytes of a job's streams, and where they are computed.

    Attributes:
        quality: rate point of the codec; its default if ``None``.
        metric: what is optimised, as for :func:`lof.optimize`.
        weights: folder with weights, as for :func:`lof.load_codec`.
        lmbda: λ of ``bpp + λ·D``; :meth:`~lof.codecs.Codec.lambda_for` the metric if ``None``.
        format: name of the container; the codec's own if empty.
        precision: ``auto``, ``bf16`` or ``fp32``, of the search's synthesis.
        strip: leave ICC profile, EXIF and other metadata out of the streams.
        portable: write streams that CPUs with other instructions read too, as for :func:`lof.optimize`.
        never_bigger: keep the plain encoding where the better file would have more bytes.
        regions: how much each pixel counts.
        target: as for :func:`lof.optimize`; without ``quality``, all qualities are used.
        total: the target is the size of all files together, shared out so that all images have the same λ.
        memory: bytes that the process of a search may take, as for :func:`lof.optimize`.
        against: names of :data:`lof.pictures.formats.FORMATS`, whose bytes at the same PSNR are found too.

    Raises:
        UsageError: λ is not a positive number, the seed is not in 0…2⁶³−1, or a format is unknown.
        MissingExtraError: a format of ``against`` cannot be written here.
    """

    codec: str
    profile: Profile
    quality: float | None = None
    metric: str = "mse"
    weights: Path | None = None
    lmbda: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    format: str = ""
    strip: bool = False
    portable: bool = True
    never_bigger: bool = False
    regions: Regions | None = None
    against: tuple[str, ...] = ()
    target: Target | None = None
    total: bool = False
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.lmbda is not None:
            checked_lambda(self.lmbda)
        if self.lmbda is not None and self.target is not None:
            raise UsageError(f"lambda {self.lmbda}: a target decides on it itself; leave one of the two out")
        if self.never_bigger and self.target is not None:
            raise UsageError("--never-bigger: a target decides on the size itself; leave one of the two out")
        if self.target is not None and self.target.psnr_inside is not None and self.regions is None:
            raise UsageError("--target-psnr-inside: inside of what? add --region")
        if self.total and (self.target is None or self.target.size is None):
            raise UsageError("--total: needs a size in bytes; add --target-bytes")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed}: must be a whole number from 0 to {2**63 - 1}")
        if self.regions is not None and self.metric != "mse":
            raise UsageError("--region: needs the metric mse")
        object.__setattr__(self, "format", self.format or container_for(self.codec))
        container(self.format)
        require_formats(self.against, "--against")

    @property
    def suffix(self) -> str:
        """What output names end in."""
        return container(self.format).suffix

    @property
    def evaluations(self) -> int:
        """Gradient evaluations for each image, at most."""
        return self.profile.evaluations if self.target is None else 8 * self.profile.evaluations + 15

    def load(self, device: str | None = None, quality: float | None = None) -> Codec:
        """The codec, on the job's device or another one, and at its quality or another one.

        Raises:
            UsageError: no such codec, device or precision, the format cannot hold its streams, or the profile has a
                learning rate for a latent that it does not have.
            WeightsError: the weights cannot be had.
        """
        from lof.codecs import codec_spec, load_codec
        from lof.search import refuse_other_latents

        codec = load_codec(
            self.codec,
            self.quality if quality is None else quality,
            metric=codec_spec(self.codec).made_for(self.metric),
            weights=self.weights,
            device=device or self.device,
            precision=self.precision,
        )
        container(self.format).require(codec.name)
        refuse_other_latents(codec, self.profile)
        return codec

    def ladder(self) -> Ladder:
        """The codec at the qualities at which a target may be met; errors are those of :meth:`load`."""
        from lof.codecs import codec_spec
        from lof.targets import Ladder

        if self.quality is not None:
            return Ladder.of_one(self.load())
        spec = codec_spec(self.codec)
        return Ladder.of(spec, spec.made_for(self.metric), lambda quality: self.load(quality=quality))

    def digest(self, codec: Codec, *, maps: bool = True) -> str:
        """16 hexadecimal digits: with equal ones, a finished image need not be done again.

        The device is left out, so that a job may continue on another machine, and so is ``against``, which decides no
        byte of a stream.

        Args:
            maps: whether the maps in a folder of regions count; without, they are to be compared image by image.
        """
        content = [
            codec.name,
            codec.quality,
            codec.metric,
            codec.fingerprint.hex(),
            self.profile.digest,
            codec.lambda_for(self.metric) if self.lmbda is None else self.lmbda,
            self.seed,
            self.precision,
            self.format,
            self.strip,
            self.portable,
            # So that older digests stay as they are:
            *([self.regions.digest if maps else self.regions.common] if self.regions else []),
            *([self.metric] if self.metric != codec.metric else []),
            *(["never bigger"] if self.never_bigger else []),
            *([f"target {self.target}", self.quality] if self.target else []),
            *(["in total"] if self.total else []),
            *([f"memory {self.memory}"] if self.memory else []),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
