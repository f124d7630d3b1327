"""Published checkpoints: plain state dicts, whole, in half precision, or with parts missing."""

import pytest
import torch

import destseg


def test_published_checkpoints_load_by_name(few_parts, teacher_weights, picture, tmp_path):
    path = tmp_path / "published.pckl"
    fitted = destseg.DeSTSeg("paper", image_size=64, precision="float32", teacher_weights=teacher_weights)
    fitted.fit(few_parts, steps=(1, 1), batch_size=2, progress=False, false_positive_rate=0.1)
    state = fitted.network_.state_dict()
    torch.save(state, path)
    model = destseg.DeSTSeg.from_checkpoint(path, image_size=64)
    assert (model.preset, model.teacher) == ("paper", "resnet18")
    with pytest.raises(RuntimeError, match=r"call calibrate\(normal\)"):
        model.predict(picture)
    with pytest.raises(RuntimeError, match=r"call calibrate\(normal\)"):
        model.calibrate()
    model.calibrate([picture, picture[:, ::-1]])
    assert model.predict(picture).score == fitted.predict(picture).score
    torch.save({key: value.half() for key, value in state.items()}, path)
    in_half = destseg.DeSTSeg.from_checkpoint(path, image_size=64).calibrate([picture])
    assert in_half.predict(picture).score == pytest.approx(fitted.predict(picture).score, abs=1e-2)
    name = "segmentation_net.head.4.bias"
    torch.save({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(ValueError, match=r"lacks the tensor segmentation_net\.head\.4\.bias of shape \(1,\)"):
        destseg.DeSTSeg.from_checkpoint(path)
    with pytest.raises(ValueError, match="must have shape"):
        destseg.DeSTSeg.from_checkpoint(path, preset="fast")
    destseg.DeSTSeg.from_checkpoint(path, segmentation=False)
    torch.save(state | {name: torch.zeros(7)}, path)
    with pytest.raises(ValueError, match=r"bias must have shape \(1,\), got \(7,\)"):
        destseg.DeSTSeg.from_checkpoint(path)
