"""DeSTSeg: fit on normal pictures, predict, evaluate, save and load."""

import os
from collections.abc import Iterator
from typing import Any

from destseg import cuda_graph, exporting, modelfile, presets
from destseg.calibration import Calibration, calibrated, check_rate, check_share, split
from destseg.engines import Engine
from destseg.estimate import announce
from destseg.evaluation import Report, evaluate
from destseg.files import check_writable, read_tensors
from destseg.folders import Pictures, Source, as_pictures, is_several, read_mvtec
from destseg.framing import Framing, framing_of
from destseg.networks import DeSTSegNet
from destseg.prediction import predictions, scorer
from destseg.result import Prediction
from destseg.roi import Roi
from destseg.store import MEMORY, PictureStore
from destseg.synthesis import Rotate, Synthesis, check_augmentation
from destseg.teachers import Weights, check_teacher
from destseg.textures import PictureTextures, from_normals
from destseg.training import check_precision, check_schedule, new_trainer

FilePath = str | os.PathLike[str]


class DeSTSeg(presets.FixedSettings):
    """Finds and outlines defects after seeing normal pictures only.

    Args, stored as given; what pictures and networks are made of cannot be changed afterwards:
        preset: "paper", the published network; "fast", a light one; or "stpm", the student-teacher baseline.
        teacher: "resnet18", ImageNet weights of torchvision; or "embedded", the one in this package.
        image_size: sides of the network's input in pixels, one number or (height, width), at least 64.
        seed: of everything drawn at random, a whole number of at least 0.
        device: "auto" (CUDA if there is one), or what torch calls a device.
        teacher_weights: file or state dict; `destseg.teachers.teacher_state` says where it looks without.
        precision: of training: "float32", "bfloat16", or "auto", see `destseg.training.training_precision`.
        inference_precision: of prediction: "float32"; on a GPU also "float16" or "bfloat16".
        denoising, encoder_decoder, segmentation: switch a part of the preset on or off, for ablations.
        tile: side in pixels of what of a picture becomes one input, or (height, width), for large pictures;
            None: the whole picture does. Tiles overlap by a quarter, or by the share `overlap`.
        keep_aspect: scale pictures alike in both directions; the rest of the input is padding, which nothing
            learns from and no score counts.
        roi: region of interest, a mask or a polygon, see `destseg.roi.RegionOfInterest`.

    Learnt by `fit`:
        network_: destseg.networks.DeSTSegNet, of which a copy scores; of an exported model its engine.
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
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.25,
        keep_aspect: bool = False,
        roi: Roi | None = None,
        inference_precision: str = "float32",
    ) -> None:
        self.preset, self.teacher, self.image_size = preset, check_teacher(teacher), image_size
        self.seed = presets.whole_number("seed", seed)
        self.device, self.teacher_weights, self.precision = device, teacher_weights, precision
        self.denoising, self.encoder_decoder, self.segmentation = denoising, encoder_decoder, segmentation
        self.tile, self.overlap, self.keep_aspect, self.roi = tile, overlap, keep_aspect, roi
        self.inference_precision = cuda_graph.checked_precision(inference_precision, device)
        self._framing = framing_of(presets.input_size(image_size), keep_aspect, tile, overlap, roi)
        self._parts = presets.parts_of(
            preset, denoising=denoising, encoder_decoder=encoder_decoder, segmentation=segmentation
        )
        check_precision(precision)
        self.network_: DeSTSegNet | Engine | None = None
        self._scoring: DeSTSegNet | cuda_graph.GpuNetwork | None = None
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
        steps: tuple[int, int] | None = None,
        batch_size: int | None = None,
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
            steps: training steps of the student stage and of the segmentation stage; by default the preset's:
                1000 and 4000 as published, for "fast" 600 and 800.
            batch_size: pictures per step, by default 32, for "fast" 8; there may be fewer pictures than that.
            texture_source: pictures whose texture anomalies take; by default they are made from `normal`.
            rotate: 0, degrees either way, or "90" (quarter turns +-5), if parts lie like that in reality.
            progress: on a terminal, say how long it will take, and show progress bars.
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
        steps, batch_size = presets.schedule(self.preset, steps, batch_size)
        check_schedule(steps, batch_size)
        check_augmentation(rotate, flip)
        check_rate(false_positive_rate)
        check_share(held_out)
        workers = presets.whole_number("workers", workers)
        path = check_writable(resume if checkpoint is None else checkpoint)
        sources = as_pictures(normal)
        textures = None if texture_source is None else as_pictures(texture_source)
        network = presets.new_network(self._parts, self.teacher, self.teacher_weights, self.seed)
        network = network.to(presets.torch_device(self.device))
        store = PictureStore(sources, self._framing, memory, strict, progress)
        training, calibrating = split(store.pictures, self.seed, held_out)
        normals = store.subset(training)
        draw = from_normals(normals)
        if textures is not None:
            draw = PictureTextures(PictureStore(textures, Framing(store.size), memory, strict, progress))
        synthesis = Synthesis(normals, draw, batch_size, self.seed, rotate, flip)
        trainer = new_trainer(network, synthesis, steps, self.precision, self._parts, memory, resume)
        announce(trainer, progress)
        losses = trainer.run(workers, progress, path, checkpoint_minutes)
        self._adopt(network, losses)
        held, trained_on = store.subset(calibrating), calibrating == training
        self.calibration_ = calibrated(self._network(), held, false_positive_rate, trained_on, progress)
        return self

    def calibrate(
        self,
        normal: Pictures | None = None,
        false_positive_rate: float = 0.01,
        *,
        strict: bool = False,
        roi: Roi | None = None,
    ) -> "DeSTSeg":
        """Set the thresholds from normal pictures alone, by split-conformal prediction.

        `destseg.calibration` tells what the wanted rate means and what happens with too few pictures.

        Args:
            normal: normal pictures that `fit` did not see; by default the scores of the last calibration.
            false_positive_rate: wanted, between 0 and 1.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
            roi: region of interest of these pictures; it becomes the model's.
        """
        check_rate(false_positive_rate)
        network = self._network()
        if normal is not None:
            framing = self._framing.within(roi)
            store = PictureStore(as_pictures(normal), framing, strict=strict)
            self.calibration_ = calibrated(network, store, false_positive_rate)
            self.__dict__.update(_framing=framing, roi=self.roi if roi is None else roi)
        elif roi is not None:
            raise ValueError("roi goes with normal pictures: the last calibration's scores have theirs")
        elif self.calibration_ is None:
            raise RuntimeError("no calibration scores yet: call calibrate(normal) with normal pictures")
        else:
            self.calibration_ = self.calibration_.at_rate(false_positive_rate)
        return self

    def predict(self, image: Pictures, *, strict: bool = False, roi: Roi | None = None) -> Any:
        """Find defects in one picture, or in each of several. Threads may call it at the same time.

        Args:
            image: one picture, as `destseg.images.to_rgb` takes it, gives a Prediction; a directory, a list
                or a stack of pictures gives a list, with None for pictures that cannot be read: each is
                reported by name in a warning.
            strict: raise at the first unreadable picture of several.
            roi: region of interest instead of the model's; the anomaly map is 0 outside. The false-positive
                rate holds for parts of what the model was calibrated with, see `destseg.scoring.scores`.

        Raises:
            RuntimeError: before `fit`, without calibration, or where the network gives NaN.
            ValueError, OSError, TypeError: a single picture cannot be read; UnreadableImage for files.
        """
        if is_several(image):
            results = (result for _, result in self.predict_each(image, strict=strict, roi=roi))
            return [None if isinstance(result, Exception) else result for result in results]
        return next(self.predict_each(image, strict=True, roi=roi))[1]

    def predict_each(
        self, images: Pictures, *, strict: bool = False, roi: Roi | None = None
    ) -> Iterator[tuple[Source, Prediction | Exception]]:
        """Yield every picture with its Prediction, or with the error that kept it from being read.

        Arguments and errors as for `predict`. Pictures are decoded ahead and none is kept.
        """
        network, calibration = self._network(), self._calibration()
        yield from predictions(network, self._framing.within(roi), calibration, as_pictures(images), strict)

    def evaluate(
        self, dataset: FilePath, protocol: str = "full", progress: bool = True, *, roi: Roi | None = None
    ) -> Report:
        """Compute the six metrics on a directory of the MVTec layout.

        Args:
            dataset: directory that holds test/<defect> and ground_truth/<defect>.
            protocol: "full", masks at their own resolution and labels from the folder, or "paper", masks
                resized to the network's input and labels from what is left of them there.
            progress: show a progress bar on a terminal.
            roi: region of interest instead of the model's: no pixel outside of it counts.
        """
        network, framing = self._network(), self._framing.within(roi)
        samples = read_mvtec(dataset)
        return evaluate(samples, scorer(network, framing), protocol, self.threshold_, progress)

    def save(self, path: FilePath) -> None:
        """Write everything that `destseg.load` needs, teacher included, into one file, atomically."""
        modelfile.write(path, self._trained(), self._settings(), self.calibration_, self.losses_)

    def export(
        self,
        path: FilePath,
        format: str | None = None,
        precision: str = "float32",
        *,
        normal: Pictures | None = None,
        strict: bool = False,
        calibration: Pictures | None = None,
    ) -> None:
        """Write one graph from pixels to a verdict. Arguments and errors: see `destseg.exporting.export`."""
        parts = self._trained(), self._settings(), self._calibration()
        exporting.export(*parts, path, format, precision, normal, strict, calibration)

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
        self.network_ = presets.ready_to_predict(network, presets.torch_device(self.device))
        self._scoring = cuda_graph.scoring(self.network_, self._framing.size, self.inference_precision)
        self.losses_, self.calibration_ = losses, None  # thresholds belong to one network

    def _settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in presets.STORED}
        return settings | self._framing.settings() | {name: self._parts[name] for name in presets.SWITCHES}

    def _calibration(self) -> Calibration:
        if self.calibration_ is not None:
            return self.calibration_
        raise RuntimeError("this model has no thresholds yet: call calibrate(normal) with normal pictures")

    def _trained(self) -> DeSTSegNet:
        if self._network() and isinstance(self.network_, DeSTSegNet):
            return self.network_
        raise RuntimeError("this is an exported model: save or export the one that it was made from")

    def _network(self) -> DeSTSegNet | Engine | cuda_graph.GpuNetwork:
        if self.network_ is not None:
            return self._scoring or self.network_
        raise RuntimeError("this model has learnt nothing yet: call fit(normal) or destseg.load(path)")
