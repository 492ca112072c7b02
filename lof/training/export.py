"""From checkpoints to weights that ship: float16 safetensors with tables, measured, and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from safetensors.torch import save as to_safetensors

from lof.codecs import Codec, trainable
from lof.codecs.weights import weights_name
from lof.errors import TrainingError
from lof.files.atomic import write_atomically
from lof.pictures.picture import Picture
from lof.training.card import Exported, model_card
from lof.training.data import load_validation
from lof.training.measure import Summary, measure, shippable, summarise
from lof.training.trained import Trained, quality_of, read_trained


def export_weights(
    checkpoints: Sequence[Path],
    folder: Path,
    *,
    measure_on: Path | None = None,
    codec: str | None = None,
    quality: float | None = None,
    history: Mapping[str, str] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> list[Exported]:
    """Write the weights of checkpoints of one codec to ``folder``, and one model card for all of them.

    The weights are reloaded from their file; that is what is fingerprinted and measured.

    Args:
        measure_on: folder of pictures; each becomes a real file, which is decoded and compared.
        codec, quality: where the checkpoint itself does not say; ``quality`` with a single checkpoint only.
        history: for the card, before what the checkpoints say themselves: ``data``, ``hardware``, ``time``.
        on_picture: called with the number of pictures measured and their total.

    Returns:
        The rate points, lowest rate first. The card is ``<codec>.md`` beside them.

    Raises:
        TrainingError: a checkpoint cannot be exported, or they are not rate points of one codec.
        OutputError: ``folder`` cannot be written.
    """

    if not checkpoints or (quality is not None and len(checkpoints) > 1):
        raise TrainingError("name one checkpoint or more; --quality goes with a single one")
    trained = [_completed(read_trained(path), codec, quality, history or {}) for path in checkpoints]
    _check_one_family(trained)
    pictures = load_validation([str(measure_on)])[0] if measure_on else []
    total = len(pictures) * len(trained)

    def tell(done: int) -> None:
        if on_picture:
            on_picture(done, total)

    exported = []
    for position, one in enumerate(trained):
        path, reloaded, architecture = _write(one, folder)
        measured = []
        for index, picture in enumerate(pictures, start=1):
            measured += measure(reloaded, [picture])
            tell(position * len(pictures) + index)
        summary = summarise(measured) if measured else None
        exported.append(_exported(one, path, reloaded, architecture, summary))
    exported.sort(key=lambda point: point.quality)
    card = model_card(exported, measure_on.name if measure_on else None, _is_kodak(measure_on, pictures))
    write_atomically(folder / f"{exported[0].codec}.md", card.encode())
    return exported


def _completed(
    trained: Trained, codec: str | None, quality: float | None, history: Mapping[str, str]
) -> Trained:
    """With what the caller knows; everything that the file names need is there afterwards."""
    if trained.lmbda is None:
        raise TrainingError(
            f"{trained.path}: does not say its λ; export the checkpoint that it was made from"
        )
    chosen = quality or trained.quality or quality_of(trained.lmbda, trained.metric)
    if chosen is None:
        raise TrainingError(
            f"{trained.path}: λ {trained.lmbda:g} is no rate point of the zoo; name one with --quality"
        )
    known = {**trained.history, **history}
    return replace(trained, codec=codec or trained.spec.name, quality=chosen, history=known)


def _check_one_family(trained: Sequence[Trained]) -> None:
    first = trained[0]
    for other in trained[1:]:
        if (other.codec, other.metric) != (first.codec, first.metric):
            raise TrainingError(
                f"{other.path}: not of the same codec as {first.path}; export each codec by itself"
            )
    qualities = [one.quality for one in trained]
    if len(set(qualities)) != len(qualities):
        raise TrainingError(
            f"two of the checkpoints are of the same quality ({qualities}); export one of them"
        )


def _write(trained: Trained, folder: Path) -> tuple[Path, Codec, str]:
    quality, lmbda, name = cast(float, trained.quality), cast(float, trained.lmbda), trained.spec.name
    family = trainable(name)
    state = shippable(name, trained.sizes, trained.state, str(trained.path))
    named = len(trained.sizes) == 2
    sizes = [f"{n}={v}" for n, v in zip("NM", trained.sizes, strict=True)] if named else trained.sizes
    architecture = f"{family.network.__name__}({', '.join(map(str, sizes))})"
    path = folder / weights_name(name, trained.metric, quality)
    state, extra = family.compact(state, trained.metric, quality)
    metadata = {"architecture": architecture, "lambda": repr(lmbda), **extra}
    write_atomically(path, to_safetensors(state, metadata))
    reloaded, stated = family.read(folder, trained.metric, quality)
    assert stated == lmbda
    codec = family.codec(
        reloaded,
        sizes=trained.sizes,
        metric=trained.metric,
        quality=quality,
        lmbda=lmbda,
        origin=str(path),
    )
    return path, codec, architecture


def _exported(
    trained: Trained, path: Path, codec: Codec, architecture: str, summary: Summary | None
) -> Exported:
    return Exported(
        path=path,
        codec=codec.name,
        metric=codec.metric,
        quality=codec.quality,
        lmbda=codec.lmbda,
        sizes=trained.sizes,
        architecture=architecture,
        fingerprint=codec.fingerprint.hex(),
        history=trained.history,
        summary=summary,
        decoding=trainable(codec.name).decoding_cost(codec),
    )


def _is_kodak(folder: Path | None, pictures: Sequence[Picture]) -> bool:
    """Whether the pictures can be held against published Kodak figures: all 24, by name and size."""
    if folder is None:
        return False
    names = {path.stem.lower() for path in folder.iterdir()}
    complete = {f"kodim{number:02d}" for number in range(1, 25)} <= names
    sizes = {tuple(sorted(picture.pixels.shape[:2])) for picture in pictures}
    return complete and len(pictures) == 24 and sizes == {(512, 768)}
