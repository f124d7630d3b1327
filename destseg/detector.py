"""DeSTSeg: fit on normal pictures, predict, evaluate, save and load."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import PIL.Image

from destseg.artifacts.artifact import Artifact
from destseg.artifacts.formats import FORMATS, check_name, read
from destseg.files import FilePath, check_writable
from destseg.inference.calibration import Calibration, calibrated, split
from destseg.inference.prediction import Prediction
from destseg.inference.report import Report, evaluate
from destseg.inference.scorer import Scorer
from destseg.inference.stream import predictions, stream
from destseg.pictures.folders import Pictures, Source, as_pictures, is_several, read_mvtec
from destseg.pictures.framing import Framing, framing_of
from destseg.pictures.roi import RegionOfInterest, Roi
from destseg.pictures.store import MEMORY, Failures, PictureStore
from destseg.settings import Schedule, Settings, check_device, check_duration, check_rate, whole_number

if TYPE_CHECKING:
    from destseg.model.networks import DeSTSegNet
    from destseg.model.teachers import Weights

logger = logging.getLogger("destseg")

OnePicture: TypeAlias = bytes | bytearray | PIL.Image.Image
"""What is certainly one picture; paths may be folders, and arrays stacks."""


class DeSTSeg:
    """Finds and outlines defects after seeing normal pictures only.

    Args:
        preset, teacher, image_size, seed: see `destseg.settings.Settings`.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", "mps" or "xpu".
        teacher_weights: file or state dict; without them see `destseg.model.teachers.teacher_state`.
        settings: the others of `destseg.settings.Settings`, by name: precision, inference_precision,
            denoising, encoder_decoder, segmentation, tile, overlap, keep_aspect, roi. The region of interest
            is a mask or a polygon, as `destseg.pictures.roi.RegionOfInterest` takes it.

    Attributes:
        settings: all of them, checked; each can be read from the model by its name, and none be changed.
        device, teacher_weights: as given.

    Learnt by `fit`:
        network_: destseg.model.networks.DeSTSegNet; None before, and of an exported model.
        calibration_: destseg.inference.calibration.Calibration, the scores of held-out normal pictures.
        threshold_, pixel_threshold_: made from it; above them a picture, or a pixel, counts as anomalous.
        losses_: one value a training step, both stages one after the other.

    Raises ValueError that says what is allowed and what came.
    """

    def __init__(
        self,
        preset: str = "paper",
        teacher: str = "resnet18",
        image_size: int | tuple[int, int] = 256,
        seed: int = 0,
        device: str = "auto",
        *,
        teacher_weights: "Weights" = None,
        roi: Roi | None = None,
        **settings: Any,
    ) -> None:
        region = None if roi is None else RegionOfInterest(roi)
        own = Settings(preset, teacher, image_size, seed, roi=region, **settings)
        self._begin(own, device, teacher_weights)

    def _begin(self, settings: Settings, device: str, teacher_weights: "Weights" = None) -> None:
        self.settings, self.device = settings, check_device(device)
        self.teacher_weights = teacher_weights
        if settings.inference_precision != "float32":
            from destseg.model.scorer import check_inference_precision

            check_inference_precision(settings.inference_precision, device)
        self.network_: DeSTSegNet | None = None
        self.calibration_: Calibration | None = None
        self.losses_: list[float] = []
        self._scorer: Scorer | None = None
        self._exported: Artifact | None = None  # what was loaded from an exported file

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The settings, which are read-only properties."""

    @property
    def threshold_(self) -> float | None:
        """Image scores above it are anomalous; None before calibration."""
        return self.calibration_.threshold if self.calibration_ else None

    @property
    def pixel_threshold_(self) -> float | None:
        """Values of the anomaly map above it belong to the mask; None before calibration."""
        return self.calibration_.pixel_threshold if self.calibration_ else None

    def fit(  # noqa: PLR0913 - a user names the few that matter to them
        self,
        normal: Pictures,
        steps: tuple[int, int] | None = None,
        batch_size: int | None = None,
        texture_source: Pictures | None = None,
        rotate: float | str = 0,
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
            held_out: share of the pictures held out, 0 to 0.5, at least 10; see
                `destseg.inference.calibration.split`.
            checkpoint: file for the state of training, every `checkpoint_minutes` and on SIGINT or SIGTERM;
                by default that of `resume`.
            workers: threads that prepare batches; the result does not depend on it.
            memory: bound in bytes on decoded pictures kept, on textures, and on the teacher's features, each.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.

        Returns the model itself. Raises ValueError, OSError or TypeError for input it cannot work with.
        """
        schedule = Schedule.of(
            self.settings.preset,
            steps,
            batch_size,
            rotate=rotate,
            flip=flip,
            held_out=held_out,
            false_positive_rate=false_positive_rate,
        )
        workers = whole_number("workers", workers)
        check_duration("checkpoint_minutes", checkpoint_minutes)
        path = check_writable(resume if checkpoint is None else checkpoint)
        sources = as_pictures(normal)
        texture_sources = None if texture_source is None else as_pictures(texture_source)

        from destseg.model.construction import new_network, torch_device
        from destseg.training.fit import Run, train

        device = torch_device(self.device)
        network = new_network(self.settings, self.teacher_weights).to(device)
        framing, textures = self._framing(), None
        store = PictureStore(sources, framing, memory, strict, progress)
        training, calibrating = split(store.pictures, self.settings.seed, held_out)
        normals, held = store.subset(training), [store.sources[k] for k in calibrating]
        del store  # pictures that only calibrate are read again: they need no memory while others train
        if texture_sources is not None:
            textures = PictureStore(texture_sources, Framing(framing.size), memory, strict, progress)
        resumed = None if resume is None else Path(resume)
        run = Run(workers, memory, progress, path, checkpoint_minutes, resumed)
        losses = train(network, self.settings, schedule, normals, textures, run)
        self._take(network, losses)
        self.calibration_ = self._calibrated(
            held, framing, false_positive_rate, trained_on=calibrating == training, progress=progress
        )
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

        `destseg.inference.calibration` tells what the wanted rate means, and what too few pictures do to it.

        Args:
            normal: normal pictures that `fit` did not see; by default the scores of the last calibration.
            false_positive_rate: wanted, between 0 and 1.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
            roi: region of interest of these pictures; it becomes the model's.
        """
        check_rate(false_positive_rate)
        if normal is not None:
            settings = self.settings
            if roi is not None:
                settings = dataclasses.replace(settings, roi=RegionOfInterest(roi))
            framing = framing_of(settings)
            calibration = self._calibrated(as_pictures(normal), framing, false_positive_rate, strict=strict)
            self.settings, self.calibration_ = settings, calibration
        elif roi is not None:
            raise ValueError("roi goes with normal pictures: the last calibration's scores have theirs")
        else:
            self._check_ready()
            self.calibration_ = self._thresholds().at_rate(false_positive_rate)
        return self

    @overload
    def predict(self, image: OnePicture, *, strict: bool = ..., roi: Roi | None = ...) -> Prediction: ...
    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], *, strict: bool = ..., roi: Roi | None = ...
    ) -> list[Prediction | None]: ...
    @overload
    def predict(self, image: Pictures, *, strict: bool = ..., roi: Roi | None = ...) -> Any: ...

    def predict(self, image: Pictures, *, strict: bool = False, roi: Roi | None = None) -> Any:
        """Find defects in one picture, or in each of several. Threads may call it at the same time.

        Args:
            image: one picture, as `destseg.pictures.decoding.to_rgb` takes it, gives a Prediction. A
                directory, a list or a stack of pictures gives a list, with None for pictures that cannot be
                read; each of these is named in a warning.
            strict: raise at the first unreadable picture of several.
            roi: region of interest instead of the model's; the anomaly map is 0 outside. The false-positive
                rate holds for parts of what the model was calibrated with, see
                `destseg.inference.scoring.scores`.

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
        scorer, thresholds, failures = self.scorer, self._thresholds(), Failures(strict)
        framing = self._framing().within(roi)
        with closing(predictions(scorer, framing, thresholds, as_pictures(images))) as results:
            for source, result in results:
                if isinstance(result, Exception):
                    failures.add(result)
                yield source, result

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
        scorer, framing = self.scorer, self._framing().within(roi)
        samples = read_mvtec(dataset)
        sources = [Source(str(sample.path), sample.path) for sample in samples]
        with closing(stream(scorer, framing, sources)) as results:
            return evaluate(samples, results, protocol, self.threshold_, progress)

    def save(self, path: FilePath) -> None:
        """Write everything that `destseg.load` needs into one file, teacher included, whole or not at all.

        A model that was loaded from an exported file is written in the same format, with its present
        thresholds: `destseg.load("part.onnx").calibrate(normal).save("other.onnx")`.

        Raises ValueError where the path's ending belongs to another format, or an exported file has changed
        since it was loaded.
        """
        self._check_ready()
        path = Path(path)
        if self._exported is not None:
            self._save_exported(path, self._exported)
            return
        assert self.network_ is not None  # a model that is ready has a network, or was exported
        check_name(path, FORMATS["destseg"])
        FORMATS["destseg"].write(path, self.network_.state_dict(), self._artifact())

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
        """Write one graph from pixels to a verdict, for other engines.

        `destseg.load` computes in the precision of the file. Code of your own that runs an OpenVINO graph
        must ask for that: compiled without INFERENCE_PRECISION_HINT="f32", CPUs with AMX and GPUs compute in
        16 bits, and scores differ by several hundredths.

        Args:
            path: file to write, ending in .onnx or .xml (OpenVINO: weights lie beside it in .bin).
            format: "onnx" or "openvino"; by default what the ending says.
            precision: "float32" or "int8".
            normal: normal pictures, from which "int8" learns the ranges of its numbers; those of training
                serve best.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
            calibration: normal pictures that neither training nor `normal` has seen. The exported model is
                calibrated with them by its own engine, at the model's false-positive rate. Without them the
                model's thresholds stay; their rate does not hold for "int8", whose scores differ, and the
                log says so.

        Raises:
            RuntimeError: before `fit`, without thresholds, or of a model that is an exported one itself.
            ValueError: the arguments do not fit together, or the model does more than stretch its pictures.
            ImportError: packages are missing; the message names the command that installs them.
        """
        self._check_ready()
        if self.network_ is None:
            raise RuntimeError("this is an exported model: export the one that it was made from")
        self._thresholds()

        from destseg.artifacts.export import export, wanted_format

        form = wanted_format(path, format, precision)
        artifact = dataclasses.replace(self._artifact(), precision=precision)
        export(self.network_, artifact, path, form, normal, strict=strict, calibration=calibration)

    @classmethod
    def from_checkpoint(cls, path: FilePath, **settings: Any) -> "DeSTSeg":
        """Return a model with the weights of a published checkpoint: a plain state dict, teacher included.

        Args:
            path: the checkpoint. Parts switched off in the settings may be missing from it.
            settings: as for the constructor, such as image_size and device.

        It has no thresholds yet: call `calibrate` before `predict`. Raises FileNotFoundError, or ValueError
        that names the first tensor that is missing or has another shape.
        """
        from destseg.model.construction import loaded_network
        from destseg.model.tensorfile import read_tensors

        model = cls(**settings)
        model._take(loaded_network(model.settings, read_tensors(path), str(path)), [])
        return model

    @classmethod
    def _of(cls, artifact: Artifact, settings: Settings, device: str) -> "DeSTSeg":
        """Return the model in a file, with these settings in place of the file's own."""
        model = cls.__new__(cls)
        model._begin(settings, device)
        if artifact.network is None:
            assert artifact.start is not None  # an exported file holds no tensors, but a graph
            model._scorer, model._exported = artifact.start(), artifact
        else:
            from destseg.model.construction import loaded_network

            model._take(loaded_network(settings, artifact.network, str(artifact.path)), artifact.losses)
        model.calibration_ = artifact.calibration
        return model

    def _take(self, network: "DeSTSegNet", losses: list[float]) -> None:
        """Take a trained network; thresholds of another one are no longer of use."""
        from destseg.model.construction import torch_device
        from destseg.model.scorer import ready_to_predict, scorer_of

        self.network_ = ready_to_predict(network, torch_device(self.device))
        self._scorer = scorer_of(self.network_, self.settings.size, self.settings.inference_precision)
        self.losses_, self.calibration_, self._exported = losses, None, None

    @property
    def scorer(self) -> Scorer:
        """What turns inputs into anomaly maps. Raises RuntimeError before `fit`."""
        self._check_ready()
        assert self._scorer is not None
        return self._scorer

    def _check_ready(self) -> None:
        if self._scorer is None:
            raise RuntimeError("this model has learnt nothing yet: call fit(normal) or destseg.load(path)")

    def _thresholds(self) -> Calibration:
        if self.calibration_ is None:
            raise RuntimeError(
                "this model has no thresholds yet: call calibrate(normal) with normal pictures"
            )
        return self.calibration_

    def _framing(self) -> Framing:
        return framing_of(self.settings)

    def _calibrated(
        self, sources: Sequence[Source], framing: Framing, false_positive_rate: float, **options: Any
    ) -> Calibration:
        with closing(stream(self.scorer, framing, sources)) as results:
            return calibrated(results, false_positive_rate, pictures=len(sources), **options)

    def _artifact(self) -> Artifact:
        from destseg.model.tensorfile import versions

        return Artifact(self.settings, self.calibration_, versions(), losses=self.losses_)

    def _save_exported(self, path: Path, loaded: Artifact) -> None:
        assert loaded.path is not None  # it was read from there
        form = FORMATS[loaded.engine]
        check_name(path, form)
        if self.settings.roi is not None:
            raise ValueError("the exported graph judges whole pictures: calibrate without roi before saving")
        if form.read(loaded.path).description() != loaded.description():
            raise ValueError(f"{loaded.path} has changed since it was loaded: load it again")
        changed = dataclasses.replace(loaded, settings=self.settings, calibration=self._thresholds())
        form.set_threshold(loaded.path, path, changed)
        if path.samefile(loaded.path):
            self._exported = changed


def _setting(name: str) -> property:
    def read(model: DeSTSeg) -> Any:
        return getattr(model.settings, name)

    def refuse(model: DeSTSeg, value: object) -> None:
        raise AttributeError(f"{name} of a model cannot be changed: make another one with it")

    return property(read, refuse, doc="See `destseg.settings.Settings`.")


for _field in dataclasses.fields(Settings):
    setattr(DeSTSeg, _field.name, _setting(_field.name))


def load(path: FilePath, device: str = "auto", inference_precision: str | None = None) -> DeSTSeg:
    """Load a model written by `DeSTSeg.save`, or by `DeSTSeg.export` as ONNX or OpenVINO.

    An exported one runs on its engine, on the CPU, and needs no torch. Nothing in a file is executed.

    With another `inference_precision` than that of its calibration the model has no thresholds: call
    `calibrate` with normal pictures then. Calibrated in half precision and loaded without a GPU, it predicts
    in float32, and a warning says that its thresholds are those of half precision.

    Args:
        path: the file; of OpenVINO's two files the .xml.
        device: as for `DeSTSeg`; an exported model runs on "cpu" or "auto" only.
        inference_precision: as for `DeSTSeg`; by default the one that the model was calibrated in.

    Raises FileNotFoundError, ValueError where the file is damaged, truncated or something else, or
    ImportError, naming the command that installs it, where its engine is missing.
    """
    artifact = read(path)
    settings = artifact.settings
    if artifact.network is None:
        if inference_precision is not None:
            raise ValueError(f"inference_precision of {path} was chosen by export; it cannot be changed")
        if check_device(device) not in ("auto", "cpu"):
            raise ValueError(f'exported models run on device "cpu" (or "auto"), got {device!r}')
    elif inference_precision is not None:
        settings = dataclasses.replace(settings, inference_precision=inference_precision)
        if settings != artifact.settings:
            artifact = dataclasses.replace(artifact, calibration=None)
    elif settings.inference_precision != "float32" and not _on_gpu(device):
        text = "%s was calibrated in %s on a GPU; here it predicts in float32, and scores differ a little"
        logger.warning(text, path, settings.inference_precision)
        settings = dataclasses.replace(settings, inference_precision="float32")
    return DeSTSeg._of(artifact, settings, device)


def _on_gpu(device: str) -> bool:
    from destseg.model.construction import torch_device

    return torch_device(device).type == "cuda"
