"""From checkpoints to weights that ship: safetensors, measured, and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lof.codecs import codec_spec, trainable
from lof.errors import TrainingError, WeightsError
from lof.files.atomic import temporary_folder, write_atomically
from lof.pictures.picture import Picture
from lof.training.card import Exported, model_card
from lof.training.data import load_validation
from lof.training.measure import load_written, measure, summarise, write_weights
from lof.training.recipe import check_rate
from lof.training.trained import Trained, read_trained


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

    The weights are reloaded from their file; that is what is fingerprinted and measured. Where one network serves
    all rates, it is measured at every whole quality.

    Args:
        measure_on: folder of pictures; each becomes a real file, which is decoded and compared.
        codec, quality: where the checkpoint itself does not say; ``quality`` with a single checkpoint only.
        history: for the card, before what the checkpoints say themselves: ``data``, ``hardware``, ``time``.
        on_picture: called with the number of pictures measured and their total.

    Returns:
        The rate points, lowest rate first. The card is ``<codec>.md`` beside them.

    Raises:
        TrainingError: a checkpoint cannot be exported, they are not rate points of one codec, or no file can state
            the quality.
        UnknownCodecError: λ is needed, and the codec has no such quality.
        OutputError: ``folder`` cannot be written.
    """
    if not checkpoints or (quality is not None and len(checkpoints) > 1):
        raise TrainingError("name one checkpoint or more; --quality goes with a single one")
    trained = [_completed(read_trained(path), codec, quality, history or {}) for path in checkpoints]
    _check_one_family(trained)
    pictures = load_validation([str(measure_on)], trained[0].metric)[0] if measure_on else []
    with temporary_folder() as made:  # nothing is written to ``folder`` that lof itself refuses to load
        ready = [_readable(one, Path(made)) for one in trained]
        for path in ready:
            write_atomically(folder / path.name, path.read_bytes())
    points = [
        (one, folder / path.name, at) for one, path in zip(trained, ready, strict=True) for at in _rates(one)
    ]
    exported = []
    for position, (one, path, at) in enumerate(points):

        def tell(done: int, before: int = position * len(pictures)) -> None:
            if on_picture:
                on_picture(before + done, len(points) * len(pictures))

        exported.append(_exported(one, path, at, pictures, tell))
    exported.sort(key=lambda point: point.quality)
    card = model_card(exported, measure_on.name if measure_on else None, _is_kodak(measure_on, pictures))
    write_atomically(folder / f"{exported[0].codec}.md", card.encode())
    return exported


def _completed(
    trained: Trained, codec: str | None, quality: float | None, history: Mapping[str, str]
) -> Trained:
    """With what the caller and the registry know; everything that the file needs is there afterwards."""
    name, lmbda = codec or trained.codec, trained.lmbda
    if name is None:
        raise TrainingError(f"{trained.path}: does not say its codec; name it with --codec")
    spec = codec_spec(name)
    if spec.rates.one_network:
        quality = lmbda = None
    else:
        quality = quality or trained.quality
        if quality is None:
            raise TrainingError(f"{trained.path}: does not say its rate point; name it with --quality")
        lmbda = lmbda or spec.rate_point(trained.metric, quality).lmbda
        check_rate(trained.metric, quality, lmbda, str(trained.path))
    known = {**trained.history, **history}
    return replace(trained, codec=name, quality=quality, lmbda=lmbda, history=known)


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


def _readable(trained: Trained, folder: Path) -> Path:
    """Weights as they ship, in a file of ``folder`` that their codec's loader has read."""
    path = write_weights(trained, folder)
    try:
        load_written(trained, path, _rates(trained)[0])
    except WeightsError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise TrainingError(f"{trained.path}: {why}; name another checkpoint") from error
    return path


def _rates(trained: Trained) -> list[float]:
    if trained.quality is not None:
        return [trained.quality]
    assert trained.codec is not None
    return [quality for _, quality in codec_spec(trained.codec).rate_points]


def _exported(
    trained: Trained,
    path: Path,
    quality: float,
    pictures: Sequence[Picture],
    tell: Callable[[int], None],
) -> Exported:
    codec, measured = load_written(trained, path, quality), []
    for done, picture in enumerate(pictures, start=1):
        measured += measure(codec, [picture])
        tell(done)
    return Exported(
        path=path,
        codec=codec.name,
        metric=codec.metric,
        quality=codec.quality,
        lmbda=codec.lmbda,
        one_network=trained.quality is None,
        fingerprint=codec.fingerprint.hex(),
        history=trained.history,
        about=trainable(codec.name).card(codec),
        summary=summarise(measured) if measured else None,
    )


def _is_kodak(folder: Path | None, pictures: Sequence[Picture]) -> bool:
    """Whether the pictures can be held against published Kodak figures: all 24, by name and size."""
    if folder is None:
        return False
    names = {path.stem.lower() for path in folder.glob("*")}
    complete = {f"kodim{number:02d}" for number in range(1, 25)} <= names
    sizes = {tuple(sorted(picture.pixels.shape[:2])) for picture in pictures}
    return complete and len(pictures) == 24 and sizes == {(512, 768)}
