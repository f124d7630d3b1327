"""DeSTSeg: fit on normal pictures, predict, evaluate, save and load."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import PIL.Image

from destseg.artifacts.artifact import Artifact
from destseg.artifacts.formats import FORMATS, check_name, format_of, read
from destseg.artifacts.record import FitRecord
from destseg.files import FilePath, as_path, check_writable
from destseg.inference.calibration import Calibration, calibrate
from destseg.inference.evaluation import evaluate
from destseg.inference.prediction import Prediction
from destseg.inference.report import Report
from destseg.inference.robustness import with_robustness
from destseg.inference.scorer import Scorer
from destseg.inference.stream import predictions, stream
from destseg.page.gallery import Gallery
from destseg.page.rendering import html_table
from destseg.pictures.advice import advice_on
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.decoding import Bytes, File
from destseg.pictures.folders import (
    Pictures,
    Source,
    as_normals,
    as_pictures,
    is_several,
    iterate_normals,
    iterate_pictures,
)
from destseg.pictures.framing import Framing, framing_of
from destseg.pictures.groups import Groups, groups_of, hint_at_groups, units_of
from destseg.pictures.roi import RegionOfInterest, Roi
from destseg.pictures.store import MEMORY, Failures, Picture, PictureStore, learn_bit_depth
from destseg.progress import say
from destseg.settings import (
    Schedule,
    Settings,
    check_amounts,
    check_device,
    check_groups,
    check_rate,
    whole_number,
)

if TYPE_CHECKING:
    from destseg.model.networks import DeSTSegNet
    from destseg.model.teachers import Weights

logger = logging.getLogger("destseg")

OnePicture: TypeAlias = Bytes | File | PIL.Image.Image
"""Types that are always a single picture; a path may be a folder, an array a stack."""


class DeSTSeg:
    """Finds and outlines defects after seeing normal pictures only.

    Args:
        preset, teacher, image_size, seed: see `destseg.settings.Settings`. By default a light network with
            the teacher in this package; "paper" is the published method.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", "mps" or "xpu".
        teacher_weights: the teacher's, a file or state dict; the teacher is then "resnet18" unless it is
            named. By default see `destseg.model.teachers.teacher_state`.
        roi: region of interest, a mask or a polygon, as `destseg.pictures.roi.RegionOfInterest` takes it.
        settings: the others of `destseg.settings.Settings`, by name: precision, inference_precision,
            denoising, encoder_decoder, segmentation, memory_bank, bounded, student_encoder, tile,
            overlap, keep_aspect, bit_depth.

    Attributes:
        device, teacher_weights: as given.

    Learnt by `fit`:
        network_: destseg.model.networks.DeSTSegNet; None before `fit`, and in an exported model.
        calibration_: destseg.inference.calibration.Calibration, the scores of held-out normal pictures.
        threshold_, pixel_threshold_: above the first a picture is anomalous; from the second masks follow.
        losses_: one value per training step, the student stage first.
        record_: destseg.artifacts.record.FitRecord, what `fit` did; None where that is not known.

    Raises:
        ValueError: a value is not allowed; the message says what is allowed and what came.

    Example:
        >>> import numpy as np
        >>> import destseg
        >>> parts = np.random.default_rng(0).integers(90, 110, (12, 64, 64, 3), dtype=np.uint8)
        >>> model = destseg.DeSTSeg(image_size=64, device="cpu")
        >>> model = model.fit(parts, steps=(1, 1), batch_size=2, false_positive_rate=0.2)
        >>> result = model.predict(parts[0])
        >>> result.anomaly_map.shape, 0 <= result.score <= 1, len(model.losses_)
        ((64, 64), True, 2)
    """

    def __init__(
        self,
        preset: str = "fast",
        teacher: str | None = None,
        image_size: int | tuple[int, int] = 256,
        seed: int = 0,
        device: str = "auto",
        *,
        teacher_weights: "Weights" = None,
        roi: Roi | None = None,
        **settings: Any,
    ) -> None:
        if teacher is None and teacher_weights is not None:
            teacher = "resnet18"  # whose weights they are, unless a teacher is named
        checked_roi = None if roi is None else RegionOfInterest(roi)
        checked = Settings(preset, teacher, image_size, seed, roi=checked_roi, **settings)
        self._begin(checked, device, teacher_weights)

    def _begin(self, settings: Settings, device: str, teacher_weights: "Weights" = None) -> None:
        self._settings, self.device = settings, check_device(str(device))
        self._learns_bit_depth = settings.bit_depth is None
        self.teacher_weights = teacher_weights
        if settings.inference_precision != "float32":
            from destseg.model.scorer import check_inference_precision

            check_inference_precision(settings.inference_precision, device)
        self.network_: DeSTSegNet | None = None
        self.calibration_: Calibration | None = None
        self.losses_: list[float] = []
        self.record_: FitRecord | None = None
        self._scorer: Scorer | None = None
        self._exported: Artifact | None = None  # the exported file that the model was loaded from

    @property
    def settings(self) -> Settings:
        """All settings, checked; each can also be read from the model by its name."""
        return self._settings

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Settings are read-only properties."""

    @property
    def threshold_(self) -> float | None:
        """A picture whose image score exceeds it is anomalous; None before calibration."""
        return self.calibration_.threshold if self.calibration_ else None

    @property
    def pixel_threshold_(self) -> float | None:
        """Masks follow from it, see `destseg.ops.components.mask_of`; None before calibration."""
        return self.calibration_.pixel_threshold if self.calibration_ else None

    def fit(  # noqa: PLR0913 - a user names the few that matter to them
        self,
        normal: Pictures,
        steps: tuple[int, int] | None = None,
        batch_size: int | None = None,
        texture_source: Pictures | None = None,
        rotate: float | str | None = None,
        progress: bool = True,
        resume: FilePath | None = None,
        *,
        flip: str = "",
        augment: str = "",
        false_positive_rate: float = 0.01,
        held_out: float = 0.2,
        groups: Groups = None,
        drop_outliers: bool = True,
        checkpoint: FilePath | None = None,
        checkpoint_minutes: float = 10.0,
        workers: int = 2,
        memory: int = MEMORY,
        strict: bool = False,
    ) -> "DeSTSeg":
        """Learn what normal parts look like, and calibrate on pictures held out of training.

        Args:
            normal: directory, list of paths, (n, h, w, 3) uint8, or whatever `as_normals` takes.
            steps: training steps of the student stage and of the segmentation stage; by default the preset's:
                600 and 800 for "fast", 1000 and 4000 as published.
            batch_size: pictures per step, by default 8 for "fast", 32 as published; there may be fewer
                pictures.
            texture_source: pictures that lend their texture to the synthetic anomalies; by default textures
                are made from `normal`.
            rotate: 0, degrees either way, or "90" (quarter turns +-5), if real parts lie like that; "auto":
                any direction if the parts seem to lie in any, see `destseg.training.poses`, otherwise 0. By
                default "auto" for "fast", 0 as published.
            progress: at a terminal or in a notebook, tell what is done and how long it will take, and show
                progress bars. Elsewhere the log "destseg" gets the same at level INFO: what is done, and once
                a minute how far it is.
            resume: a checkpoint to continue from, written by a run with the same arguments.
            flip: "", "horizontal", "vertical" or "both", if mirrored parts are normal.
            augment: "", or "light", if light and place change a little from picture to picture: brightness,
                contrast, gamma and shifts in the ranges of `destseg.training.augmentation`.
            false_positive_rate: wanted share of normal pictures called anomalous, see `calibrate`.
            held_out: share of the pictures to hold out, 0 to 0.5, but at least 10 pictures; see
                `destseg.inference.calibration.split`.
            groups: which pictures belong together, such as views of one part or crops of one strip:
                "folder", a regular expression with one group, or a function of the path, see
                `destseg.pictures.groups.groups_of`. Groups are held out whole, and the rate counts them. By
                default each picture is its own group, and a warning says if names or looks speak against it.
                Pictures with equal pixels always stay together.
            drop_outliers: leave out normal pictures that stand far out, which may be defective, see
                `destseg.training.outliers`; the rate is then that of pictures that do not. They are named in
                any case, by a warning and in `record_`.
            checkpoint: file for the state of training, written every `checkpoint_minutes` and on SIGINT or
                SIGTERM; by default the file of `resume`. If it cannot be written, training goes on.
            workers: threads that prepare batches; the result does not depend on their number.
            memory: bound in bytes on decoded pictures, on textures, and on the teacher's features, each.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.

        Returns:
            The model itself.

        Raises:
            ValueError, OSError, TypeError: an argument is not allowed, or pictures cannot be read.
        """
        schedule = Schedule.of(
            self.settings.preset,
            steps,
            batch_size,
            rotate=rotate,
            flip=flip,
            augment=augment,
            held_out=held_out,
            false_positive_rate=false_positive_rate,
            drop_outliers=drop_outliers,
        )
        workers = whole_number("workers", workers)
        check_amounts(checkpoint_minutes=checkpoint_minutes, memory=memory)
        check_groups(groups)
        path = check_writable(resume if checkpoint is None else checkpoint)

        from destseg.model.construction import new_network, torch_device
        from destseg.training.fit import Run, train
        from destseg.training.preparation import prepare

        device = torch_device(self.device)  # first: listing the pictures may take long
        sources = as_normals(normal)
        labels = dict(zip(sources, groups_of(sources, groups), strict=True))
        texture_sources = None if texture_source is None else as_pictures(texture_source)
        say(
            f"{len(sources)} pictures found; preset {self.settings.preset}, teacher {self.settings.teacher}, "
            f"on {device}",
            progress,
        )
        settings = self._settings_for(sources, progress)
        network = new_network(settings, self.teacher_weights, progress).to(device).eval()
        framing, textures = framing_of(settings), None
        store = PictureStore(sources, framing, memory, strict, progress)
        for sentence in advice_on(store):
            logger.warning(sentence)
        if groups is None:
            hint_at_groups(store)
        units = units_of(store, labels)
        prepared = prepare(store, units, network.teacher_net, schedule, settings.seed, progress)
        schedule = prepared.schedule
        if texture_sources is not None:
            textures = PictureStore(
                texture_sources, Framing(framing.size, bit_depth=framing.bit_depth), memory, strict, progress
            )
        run = Run(
            workers, memory, progress, path, checkpoint_minutes, None if resume is None else as_path(resume)
        )
        counts = {"pictures": len(sources), "left_out": len(sources) - store.pictures}
        counts |= {"trained_on": prepared.training.pictures, "calibrated_on": prepared.held_out.pictures}
        record = FitRecord.of(schedule, device.type, outliers=prepared.outliers, **counts)
        for line in record.lines():
            say(line, progress)
        losses = train(network, settings, schedule, prepared.training, textures, run)
        self._settings = settings
        self._take(network, losses)
        self.record_ = record
        options: dict[str, Any] = {"trained_on": prepared.none_held_out, "strict": strict}
        options |= {"groups": prepared.held_out_units, "progress": progress}
        self.calibration_ = self._calibrate(
            prepared.held_out.sources, framing, false_positive_rate, prepared.held_out.picture, **options
        )
        say(f"fitted; {self.calibration_.promise()}", progress)
        return self

    def calibrate(
        self,
        normal: Pictures | None = None,
        false_positive_rate: float = 0.01,
        *,
        groups: Groups = None,
        strict: bool = False,
        roi: Roi | None = None,
        progress: bool = True,
    ) -> "DeSTSeg":
        """Set the thresholds from normal pictures alone, by split-conformal prediction.

        `destseg.inference.calibration` explains what the rate guarantees, and how many pictures it takes.

        Args:
            normal: normal pictures that `fit` did not see; by default the last calibration's scores serve.
                Those of a generator are taken one by one, unless there are `groups`.
            false_positive_rate: the wanted rate, between 0 and 1.
            groups: which pictures belong together, as for `fit`; the rate then counts groups.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
            roi: region of interest in these pictures; it becomes the model's.
            progress: show progress bars, as for `fit`.
        """
        check_rate(false_positive_rate)
        check_groups(groups)
        if normal is not None:
            settings = self.settings
            if roi is not None:
                settings = dataclasses.replace(settings, roi=RegionOfInterest(roi))
            framing = framing_of(settings)
            listed = None if groups is None else as_normals(normal)
            labels = None if listed is None else groups_of(listed, groups)
            sources = iterate_normals(normal) if listed is None else listed
            options: dict[str, Any] = {"groups": labels, "strict": strict, "progress": progress}
            calibration = self._calibrate(sources, framing, false_positive_rate, **options)
            self._settings, self.calibration_ = settings, calibration
        elif roi is not None or groups is not None:
            name = "roi" if roi is not None else "groups"
            raise ValueError(
                f"{name} goes with normal pictures: the last calibration's scores keep their {name}"
            )
        else:
            self._check_ready()
            self.calibration_ = self._thresholds().at_rate(false_positive_rate)
        return self

    @overload
    def predict(
        self, image: OnePicture, *, strict: bool = ..., roi: Roi | None = ..., progress: bool = ...
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        strict: bool = ...,
        roi: Roi | None = ...,
        progress: bool = ...,
    ) -> list[Prediction | None]: ...
    @overload
    def predict(
        self, image: Pictures, *, strict: bool = ..., roi: Roi | None = ..., progress: bool = ...
    ) -> Any: ...

    def predict(
        self, image: Pictures, *, strict: bool = False, roi: Roi | None = None, progress: bool = True
    ) -> Any:
        """Find defects in one picture, or in each of several. Threads may call it at the same time.

        Args:
            image: one picture, as `destseg.pictures.decoding.to_rgb` takes it, gives a Prediction: a path,
                bytes, an open file, a Pillow image, or an array in RGB (OpenCV's are BGR:
                `image[..., ::-1]`). A directory, a list or a stack of pictures gives a list, with None for
                pictures that cannot be read; each of these is named in a warning. So does a generator, but
                not an endless one, whose list would never be complete: see `predict_each`.
            strict: raise at the first unreadable picture of several.
            roi: region of interest in place of the model's; the anomaly map is 0 outside. The false-positive
                rate holds if it is a part of the ROI that the model was calibrated with, see
                `destseg.inference.scoring.scores`.
            progress: show a progress bar for a picture of many tiles, as for `fit`.

        Raises:
            RuntimeError: the model is not fitted or not calibrated, the network gives NaN, or this process
                was forked from one that had used a model, see docs/deploy.md.
            ValueError, OSError, TypeError: a single picture cannot be read; UnreadableImage for files.
        """
        if is_several(image):
            results = (
                result for _, result in self.predict_each(image, strict=strict, roi=roi, progress=progress)
            )
            return [None if isinstance(result, Exception) else result for result in results]
        return next(self.predict_each(image, strict=True, roi=roi, progress=progress))[1]

    def predict_each(
        self, images: Pictures, *, strict: bool = False, roi: Roi | None = None, progress: bool = True
    ) -> Iterator[tuple[Source, Prediction | Exception]]:
        """Yield every picture with its Prediction, or with the error that kept it from being read.

        Arguments and errors are as for `predict`. Pictures are decoded ahead, and none is kept.

        A generator may be endless, as of a camera's frames, and is closed where the consumer stops. It is
        asked for at most two pictures beyond the one that is yielded; on a GPU, which takes batches, for
        about a hundred. So the verdict on a part may wait for later parts to arrive: where it must not, call
        `predict` with each frame. An item that is no picture is yielded in its place with its error. Errors
        of the generator itself come after the results of what it gave before.

        Example:
            >>> import itertools
            >>> import numpy as np
            >>> import destseg
            >>> def camera():
            ...     for number in itertools.count():
            ...         yield np.random.default_rng(number).integers(90, 110, (64, 64, 3), dtype=np.uint8)
            >>> model = destseg.DeSTSeg(image_size=64, device="cpu")
            >>> normal = list(itertools.islice(camera(), 12))
            >>> model = model.fit(normal, steps=(1, 1), batch_size=2, false_positive_rate=0.2)
            >>> [source.name for source, _ in itertools.islice(model.predict_each(camera()), 3)]
            ['picture 0', 'picture 1', 'picture 2']
        """
        scorer, thresholds, failures = self.scorer, self._thresholds(), Failures(strict)
        framing = framing_of(self.settings).within(roi)
        with closing(predictions(scorer, framing, thresholds, iterate_pictures(images), progress)) as results:
            for source, result in results:
                if isinstance(result, Exception):
                    failures.add(result)
                yield source, result

    def evaluate(
        self,
        dataset: FilePath,
        protocol: str = "full",
        progress: bool = True,
        *,
        roi: Roi | None = None,
        robustness: bool = False,
        strict: bool = False,
        gallery: bool = False,
    ) -> Report:
        """Compute the metrics on a directory in the MVTec layout.

        Args:
            dataset: directory that holds test/<defect> and, for pixel metrics, ground_truth/<defect>.
            protocol: "full": masks at their own resolution, labels from the folder; or "paper": masks resized
                to the network's input, labels from the resized masks.
            progress: show progress bars, as for `fit`.
            roi: region of interest in place of the model's: no pixel outside counts.
            robustness: tell, too, what comes of the same pictures a little darker, brighter, shifted and
                rotated, see `destseg.inference.robustness`. It takes five times as long.
            strict: raise at the first unreadable picture or mask instead of leaving it out with a warning.
            gallery: keep a small picture of what was found in each, for `Report.to_html`: some 20 kB each.
        """
        scorer, framing, samples = self.scorer, framing_of(self.settings).within(roi), read_mvtec(dataset)
        promised = self.calibration_.promised_rate if self.calibration_ else None
        sources = [sample.source for sample in samples]
        with closing(stream(scorer, framing, sources, progress=progress)) as results:
            options: dict[str, Any] = {"strict": strict, "pixel_threshold": self.pixel_threshold_}
            options["gallery"] = Gallery(self.pixel_threshold_, len(samples)) if gallery else None
            report = evaluate(samples, results, protocol, self.threshold_, progress, promised, **options)
        outliers = self.record_.outliers if self.record_ else ()
        known = {"test set": str(as_path(dataset))} | self.facts()
        report = dataclasses.replace(report, outliers=outliers, calibration=self.calibration_, facts=known)
        return with_robustness(report, scorer, framing, samples, progress) if robustness else report

    def facts(self) -> dict[str, str]:
        """Tell in words what there is to know about the model, for pages and notebooks, each by a name."""
        settings, engine = self.settings, "torch" if self._exported is None else self._exported.engine
        height, width = settings.size
        method = f"preset {settings.preset}, teacher {settings.teacher}, on {engine}"
        known = {"method": method, "input": f"{height} x {width} pixels (height x width)"}
        known |= {"region of interest": repr(settings.roi)} if settings.roi is not None else {}
        known |= dict(line.split(": ", 1) for line in self.record_.lines()) if self.record_ else {}
        promise = "no thresholds yet" if self.calibration_ is None else self.calibration_.promise()
        return known | {"promise": promise}

    def _repr_html_(self) -> str:
        """Show what there is to know about the model in a notebook."""
        return html_table(self.facts().items())

    def save(self, path: FilePath) -> None:
        """Write everything that `destseg.load` needs into one file, teacher included, whole or not at all.

        A model that was loaded from an exported file is written in the same format, with its present
        thresholds: `destseg.load("part.onnx").calibrate(normal).save("other.onnx")`.

        Raises ValueError if the path's ending belongs to another format, or if the exported file has changed
        since it was loaded.
        """
        self._check_ready()
        path = as_path(path)
        if self._exported is not None:
            self._save_exported(path, self._exported)
            return
        assert self.network_ is not None  # a model that is ready has a network or was loaded from an export
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
        progress: bool = True,
    ) -> None:
        """Write one graph from pixels to a verdict, for other engines.

        `destseg.load` computes in the precision of the file. Your own code must ask OpenVINO for that, by
        INFERENCE_PRECISION_HINT="f32". Otherwise CPUs with AMX and GPUs compute in 16 bits, and scores differ
        by several hundredths.

        Args:
            path: file to write, ending in .onnx or .xml (OpenVINO; its weights lie beside it in .bin).
            format: "onnx" or "openvino"; by default the ending decides.
            precision: "float32" or "int8".
            normal: normal pictures from which "int8" learns the ranges of its numbers; those of training
                serve best.
            strict: raise at the first unreadable picture instead of leaving it out with a warning.
            calibration: normal pictures that are neither in `normal` nor were seen by training. The exported
                model is calibrated with them by its own engine, at the model's false-positive rate. Without
                them the model's thresholds stay; their rate does not hold for "int8", whose scores differ,
                and a warning says so.
            progress: show progress bars, as for `fit`, and those of the packages that export.

        Raises:
            RuntimeError: the model is not fitted, has no thresholds, or was loaded from an export itself.
            ValueError: the arguments do not fit together, or the model does more than stretch its pictures.
            ImportError: packages are missing or too old; the message names the command that installs them.
        """
        self._check_ready()
        if self.network_ is None:
            raise RuntimeError("this is an exported model: export the one that it was made from")
        self._thresholds()

        from destseg.artifacts.export import export, wanted_format

        form = wanted_format(path, format, precision)
        for part in form.files(as_path(path)):
            check_writable(part)  # before minutes of work
        artifact = dataclasses.replace(self._artifact(), precision=precision)
        options: dict[str, Any] = {"strict": strict, "calibration": calibration, "progress": progress}
        export(self.network_, artifact, path, form, normal, **options)

    @classmethod
    def from_checkpoint(cls, path: FilePath, *, preset: str = "paper", **settings: Any) -> "DeSTSeg":
        """Return a model with the weights of a published checkpoint: a plain state dict, teacher included.

        Args:
            path: the checkpoint. Parts that the settings switch off may be missing from it.
            preset: that of the network in it.
            settings: as for the constructor, such as image_size and device.

        Returns:
            A model without thresholds: call `calibrate` before `predict`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a tensor is missing or has another shape; the message names the first.
        """
        from destseg.model.construction import loaded_network
        from destseg.model.tensorfile import read_tensors

        model = cls(preset, **settings)
        model._take(loaded_network(model.settings, read_tensors(path), str(path)), [])
        return model

    @classmethod
    def _of(cls, artifact: Artifact, settings: Settings, device: str) -> "DeSTSeg":
        """Return the model in a file, with these settings in place of the file's."""
        model = cls.__new__(cls)
        model._begin(settings, device)
        if artifact.network is None:
            assert artifact.start is not None  # an exported file holds a graph instead of tensors
            model._scorer = artifact.start()
            model._exported = dataclasses.replace(artifact, start=None)  # which holds the whole graph
        else:
            from destseg.model.construction import loaded_network

            network = loaded_network(settings, artifact.network, str(artifact.path), exact=True)
            model._take(network, artifact.losses)
        model.calibration_, model.record_ = artifact.calibration, artifact.record
        return model

    def _take(self, network: "DeSTSegNet", losses: list[float]) -> None:
        """Take a trained network, and drop the thresholds of an earlier one."""
        from destseg.model.construction import torch_device
        from destseg.model.scorer import ready_to_predict, scorer_of

        self.network_ = ready_to_predict(network, torch_device(self.device))
        self._scorer = scorer_of(self.network_, self.settings.size, self.settings.inference_precision)
        self.losses_, self.calibration_, self.record_, self._exported = losses, None, None, None

    @property
    def scorer(self) -> Scorer:
        """The scorer, which turns inputs into anomaly maps. Raises RuntimeError before `fit`."""
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

    def _settings_for(self, sources: Sequence[Source], progress: bool) -> Settings:
        """Return the settings to fit with: the model's, with the bit depth if that is to be learnt."""
        if not self._learns_bit_depth:
            return self.settings
        depth = learn_bit_depth(sources)
        if depth is not None:
            say(f"16-bit pictures: the highest value is within {depth} bits (bit_depth={depth})", progress)
        return dataclasses.replace(self.settings, bit_depth=depth)

    def _calibrate(
        self,
        sources: Iterable[Source],
        framing: Framing,
        false_positive_rate: float,
        take: Callable[[Source], Picture] | None = None,
        **options: Any,
    ) -> Calibration:
        count = len(sources) if isinstance(sources, Sequence) else None
        with closing(stream(self.scorer, framing, sources, take, options.get("progress", True))) as results:
            return calibrate(results, false_positive_rate, pictures=count, **options)

    def _artifact(self) -> Artifact:
        from destseg.model.tensorfile import versions

        return Artifact(
            self.settings, self.calibration_, versions(), record=self.record_, losses=self.losses_
        )

    def _save_exported(self, path: Path, loaded: Artifact) -> None:
        assert loaded.path is not None  # it was read from there
        form = format_of(loaded.path)
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
del _field


def load(path: FilePath, device: str = "auto", inference_precision: str | None = None) -> DeSTSeg:
    """Load a model written by `DeSTSeg.save`, or by `DeSTSeg.export` as ONNX or OpenVINO.

    An exported model runs on its engine, on the CPU, and needs no torch. Nothing in a file is executed.

    With another `inference_precision` than its calibration's the model has no thresholds: call `calibrate`
    with normal pictures. Where there is no GPU, a model calibrated in half precision predicts in float32, and
    a warning says that its thresholds are those of half precision.

    Args:
        path: the file; of OpenVINO's two files the .xml.
        device: as for `DeSTSeg`; an exported model takes "cpu" or "auto" only.
        inference_precision: as for `DeSTSeg`; by default the precision that the model was calibrated in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, truncated or something else.
        ImportError: the model's engine is missing or too old; the message names the command that installs it.
    """
    artifact, device = read(path), check_device(str(device))
    settings = artifact.settings
    if artifact.network is None:
        if inference_precision is not None:
            raise ValueError(f"inference_precision of {path} was chosen by export; it cannot be changed")
        if device not in ("auto", "cpu"):
            raise ValueError(f'exported models run on device "cpu" (or "auto"), got {device!r}')
    if inference_precision is not None:
        settings = dataclasses.replace(settings, inference_precision=inference_precision)
        if settings != artifact.settings:
            artifact = dataclasses.replace(artifact, calibration=None)
    elif settings.inference_precision != "float32" and (artifact.network is None or not _on_gpu(device)):
        text = "%s was calibrated in %s on a GPU; here it predicts in float32, and scores differ a little"
        logger.warning(text, path, settings.inference_precision)
        settings = dataclasses.replace(settings, inference_precision="float32")
    return DeSTSeg._of(artifact, settings, device)


def _on_gpu(device: str) -> bool:
    from destseg.model.construction import torch_device

    return torch_device(device).type == "cuda"
