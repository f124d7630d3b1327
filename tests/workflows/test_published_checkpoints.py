"""Published checkpoints: plain state dicts, whole, in half precision, or with parts missing."""

import pytest
import torch

import destseg


def test_published_checkpoints_load_by_name(fitted, picture, tmp_path):
    path = tmp_path / "published.pckl"
    state = fitted.network_.state_dict()
    torch.save(state, path)
    model = destseg.DeSTSeg.from_checkpoint(path, image_size=64)
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
    destseg.DeSTSeg.from_checkpoint(path, segmentation=False)
    torch.save(state | {name: torch.zeros(7)}, path)
    with pytest.raises(ValueError, match=r"bias must have shape \(1,\), got \(7,\)"):
        destseg.DeSTSeg.from_checkpoint(path)
