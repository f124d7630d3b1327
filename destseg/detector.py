"""DeSTSeg: fit on normal pictures, predict, evaluate, save and load."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from destseg import modelfile, presets
from destseg.calibration import Calibration, check_rate, check_share, split
from destseg.checkpoints import plan_of
from destseg.evaluation import Report, evaluate
from destseg.files import read_tensors
from destseg.folders import Pictures, Source, as_pictures, is_several, read_mvtec
from destseg.images import to_rgb
from destseg.networks import DeSTSegNet
from destseg.result import Prediction
from destseg.scoring import scored
from destseg.store import MEMORY, PictureStore, attempt
from destseg.synthesis import Rotate, Synthesis, check_augmentation, prefetched
from destseg.teachers import Weights
from destseg.textures import from_normals, from_pictures
from destseg.training import Trainer, check_precision, check_schedule, training_precision

logger = logging.getLogger("destseg")

DECODERS = 2  # threads that decode ahead of prediction

FilePath = str | os.PathLike[str]


class DeSTSeg:
    """Finds and outlines defects after seeing normal pictures only.

    Args, stored as given:
        preset: "paper", the published network; "fast", a light one; or "stpm", the student-teacher baseline.
        teacher: "resnet18", ImageNet weights of torchvision.
        image_size: sides of the network's input in pixels, one number or (height, width), at least 64.
        seed: of everything drawn at random, a whole number of at least 0.
        device: "auto" (CUDA if there is one), or what torch calls a device.
        teacher_weights: file or state dict; `destseg.teachers.teacher_state` says where it looks without.
        precision: of training: "float32", "bfloat16", or "auto", see `destseg.training.training_precision`.
            Prediction is always in float32.
        denoising, encoder_decoder, segmentation: switch a part of the preset on or off, for ablations.

    Learnt by `fit`:
        network_: destseg.networks.DeSTSegNet, in evaluation mode.
        calibration_: destseg.calibration.Calibration, the scores of held-out normal pictures.
        threshold_, pixel_threshold_: made from it; above them a picture, or a pixel, counts as anomalous.
        losses_: one value a training step, both stages one after the other.
    """

    def __init__(
        self,
        preset: str = "paper",
        teacher: str = "resnet18",
        image_size: int | tuple[int, int] = 256,
        seed: int = 0,
        device: str = "auto",
        *,
        teacher_weights: Weights = None,
        precision: str = "auto",
        denoising: bool | None = None,
        encoder_decoder: bool | None = None,
        segmentation: bool | None = None,
    ) -> None:
        self.preset, self.teacher, self.image_size = preset, teacher, image_size
        self.seed = presets.whole_number("seed", seed)
        self.device, self.teacher_weights, self.precision = device, teacher_weights, precision
        self.denoising, self.encoder_decoder, self.segmentation = denoising, encoder_decoder, segmentation
        self._size = presets.input_size(image_size)
        self._parts = presets.parts_of(
            preset, denoising=denoising, encoder_decoder=encoder_decoder, segmentation=segmentation
        )
        check_precision(precision)
        self.network_: DeSTSegNet | None = None
        self.calibration_: Calibration | None = None
        self.losses_: list[float] = []

    @property
    def threshold_(self) -> float | None:
        """Image scores above it are anomalous; None before calibration."""
        return self.calibration_.threshold if self.calibration_ else None

    @property
    def pixel_threshold_(self) -> float | None:
        """Values of the anomaly map above it belong to the mask; None before calibration."""
        return self.calibration_.pixel_threshold if self.calibration_ else None

    def fit(
        self,
        normal: Pictures,
        steps: tuple[int, int] = (1000, 4000),
        batch_size: int = 32,
        texture_source: Pictures | None = None,
        rotate: Rotate = 0,
        progress: bool = True,
        resume: FilePath | None = None,
        *,
        flip: str = "",
        false_positive_rate: float = 0.01,
        held_out: float = 0.2,
        checkpoint: FilePath | None = None,
        checkpoint_minutes: float = 10.0,
        workers: int = 2,
        memory: int = MEMORY,
        strict: bool = False,
    ) -> "DeSTSeg":
        """Learn what normal parts look like, and calibrate on pictures held out of that.

        Args:
            normal: directory, list of paths, (n, h, w, 3) uint8, or whatever `as_pictures` takes.
            steps: training steps of the student stage and of the segmentation stage.
            batch_size: pictures per step; there may be fewer pictures than that.
            texture_source: pictures whose texture anomalies take; by default they are made from `normal`.
            rotate: 0, degrees either way, or "90" (quarter turns +-5), if parts lie like that in reality.
            progress: show progress bars on a terminal.
            resume: a checkpoint to continue from, written by a run with the same arguments.
            flip: "", "horizontal", "vertical" or "both", if mirrored parts are normal.
            false_positive_rate: wanted share of normal pictures called anomalous, see `calibrate`.
            held_out: share of the pictures held out, 0 to 0.5, at least 10; see `destseg.calibration.split`.
            checkpoint: file for the state of training, every `checkpoint_minutes` and on SIGINT or SIGTERM;
                by default that of `resume`.
            workers: threads that prepare batches; the result does not depend on it.
            memory: bound in bytes on decoded pictures kept, on textures, and on the teacher's features, each.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.

        Returns the model itself. Raises ValueError, OSError or TypeError for input it cannot work with.
        """
        check_schedule(steps, batch_size)
        check_augmentation(rotate, flip)
        check_rate(false_positive_rate)
        check_share(held_out)
        workers = presets.whole_number("workers", workers)
        sources = as_pictures(normal)
        textures = None if texture_source is None else as_pictures(texture_source)
        device = presets.torch_device(self.device)
        network = presets.new_network(self._parts, self.teacher, self.teacher_weights, self.seed).to(device)
        store = PictureStore(sources, self._size, memory, strict, progress)
        training, calibrating = split(len(store), self.seed, held_out)
        normals = store.subset(training)
        texture_store, draw_texture = None, from_normals(normals)
        if textures is not None:
            texture_store = PictureStore(textures, self._size, memory, strict, progress)
            draw_texture = from_pictures(texture_store)
        synthesis = Synthesis(normals, draw_texture, batch_size, self.seed, rotate, flip)
        precision = training_precision(self.precision, device)
        plan = plan_of(network, synthesis, steps, precision, self._parts, texture_store)
        trainer = Trainer(network, synthesis, plan, memory)
        if resume is not None:
            trainer.resume(Path(resume))
        path = resume if checkpoint is None else checkpoint
        losses = trainer.run(workers, progress, None if path is None else Path(path), checkpoint_minutes)
        self._adopt(network, losses)
        self._calibrate(store.subset(calibrating), false_positive_rate, trained_on=calibrating == training)
        return self

    def calibrate(
        self, normal: Pictures | None = None, false_positive_rate: float = 0.01, *, strict: bool = False
    ) -> "DeSTSeg":
        """Set the thresholds from normal pictures alone, by split-conformal prediction.

        `destseg.calibration` tells what the wanted rate means and what happens with too few pictures.

        Args:
            normal: normal pictures that `fit` did not see; by default the scores of the last calibration.
            false_positive_rate: wanted, between 0 and 1.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
        """
        check_rate(false_positive_rate)
        self._network()
        if normal is not None:
            self._calibrate(PictureStore(as_pictures(normal), self._size, strict=strict), false_positive_rate)
        elif self.calibration_ is None:
            raise RuntimeError("no calibration scores yet: call calibrate(normal) with normal pictures")
        else:
            last = self.calibration_
            self.calibration_ = replace(last, false_positive_rate=false_positive_rate)
            self.calibration_.warn_if_short()
        return self

    def predict(self, image: Pictures, *, strict: bool = False) -> Any:
        """Find defects in one picture, or in each of several. Threads may call it at the same time.

        Args:
            image: one picture, as `destseg.images.to_rgb` takes it, gives a Prediction; a directory, a list
                or a stack of pictures gives a list, with None for pictures that cannot be read: each is
                reported by name in a warning.
            strict: raise at the first unreadable picture of several.

        Raises:
            RuntimeError: before `fit`, without calibration, or where the network gives NaN.
            ValueError, OSError, TypeError: a single picture cannot be read; UnreadableImage for files.
        """
        if is_several(image):
            results = (result for _, result in self.predict_each(image, strict=strict))
            return [None if isinstance(result, Exception) else result for result in results]
        return next(self.predict_each(image, strict=True))[1]

    def predict_each(
        self, images: Pictures, *, strict: bool = False
    ) -> Iterator[tuple[Source, Prediction | Exception]]:
        """Yield every picture with its Prediction, or with the error that kept it from being read.

        Arguments and errors as for `predict`. The next pictures are decoded meanwhile and none is kept, so
        any number of them fits into memory.
        """
        network, calibration = self._network(), self.calibration_
        if calibration is None:
            raise RuntimeError(
                "this model has no thresholds yet: call calibrate(normal) with normal pictures"
            )
        sources = as_pictures(images)
        pictures = prefetched(
            lambda k: attempt(sources[k]), range(len(sources)), min(DECODERS, len(sources) - 1)
        )
        for source, pixels in zip(sources, pictures, strict=True):
            if isinstance(pixels, Exception):
                if strict:
                    raise pixels
                logger.warning("left out: %s", pixels)  # the message names it
                yield source, pixels
                continue
            yield source, calibration.judge(scored(network, self._size, pixels), pixels, source.name)

    def evaluate(self, dataset: FilePath, protocol: str = "full", progress: bool = True) -> Report:
        """Compute the six metrics on a directory of the MVTec layout.

        Args:
            dataset: directory that holds test/<defect> and ground_truth/<defect>.
            protocol: "full", masks at their own resolution and labels from the folder, or "paper", masks
                resized to the network's input and labels from what is left of them there.
            progress: show a progress bar on a terminal.
        """
        network, size = self._network(), self._size
        samples = read_mvtec(dataset)
        return evaluate(
            samples, lambda path: scored(network, size, to_rgb(path)), protocol, self.threshold_, progress
        )

    def save(self, path: FilePath) -> None:
        """Write everything that `destseg.load` needs, teacher included, into one file, atomically."""
        settings: dict[str, Any] = {
            "preset": self.preset,
            "teacher": self.teacher,
            "image_size": list(self._size),
        }
        settings |= {"seed": self.seed, "precision": self.precision}
        settings |= {name: self._parts[name] for name in presets.SWITCHES}
        modelfile.write(path, self._network(), settings, self.calibration_, self.losses_)

    @classmethod
    def from_checkpoint(cls, path: FilePath, **settings: Any) -> "DeSTSeg":
        """Return a model with the weights of a published checkpoint: a plain state dict, teacher included.

        Args:
            path: the checkpoint. Parts switched off in the settings may be missing from it.
            settings: as for the constructor, such as image_size and device.

        It has no thresholds yet: call `calibrate` before `predict`. Raises FileNotFoundError, or ValueError
        that names the first tensor that is missing or has another shape.
        """
        model = cls(**settings)
        model._adopt(presets.loaded_network(model._parts, read_tensors(path), str(path)), [])
        return model

    def _adopt(self, network: DeSTSegNet, losses: list[float]) -> None:
        network = network.eval().requires_grad_(False).to(presets.torch_device(self.device))
        self.network_ = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.losses_, self.calibration_ = losses, None  # thresholds belong to one network

    def _network(self) -> DeSTSegNet:
        if self.network_ is None:
            raise RuntimeError(
                "this model has learnt nothing yet: call fit(normal), or use destseg.load(path)"
            )
        return self.network_

    def _calibrate(self, store: PictureStore, false_positive_rate: float, trained_on: bool = False) -> None:
        results = [scored(self._network(), self._size, store[index]) for index in range(len(store))]
        scores, pixel_scores = [r.score for r in results], [r.pixel_score for r in results]
        self.calibration_ = Calibration(tuple(scores), tuple(pixel_scores), false_positive_rate, trained_on)
        self.calibration_.warn_if_short()


def load(path: FilePath, device: str = "auto") -> DeSTSeg:
    """Load a model written by `DeSTSeg.save`; nothing in the file is executed.

    Raises FileNotFoundError, or ValueError where the file is damaged, truncated or something else.
    """
    content = modelfile.read(path)
    settings = dict(content.settings)
    height, width = settings.pop("image_size")
    model = DeSTSeg(**settings, image_size=height if height == width else (height, width), device=device)
    model._adopt(presets.loaded_network(model._parts, content.network, str(path)), content.losses)
    model.calibration_ = content.calibration
    return model
