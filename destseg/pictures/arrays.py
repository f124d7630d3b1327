"""Arrays and tensors as pictures: which ones are taken, and what is said of others."""

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch

    Tensor: TypeAlias = torch.Tensor
else:
    Tensor = Any  # torch is not imported for a type's name

DTYPES = (np.bool_, np.uint8, np.uint16, np.float16, np.float32, np.float64)
DTYPE_NAMES = "bool, uint8, uint16, float16, float32 or float64"
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"RIFF")  # how files of pictures begin


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether this is a torch tensor, without importing torch: whoever holds one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_array(image: Any, name: str | None = None) -> np.ndarray:
    """Check that an array or tensor is one picture, without converting its values.

    Args:
        image: as `destseg.pictures.decoding.to_rgb` takes it.
        name: what error messages call the picture.

    Returns:
        (h, w) or (h, w, 1 | 3 | 4) of the same dtype in native byte order, sharing memory where it can.

    Raises:
        ValueError: another shape, dtype or range; masked values; a tensor that is sparse, quantised or on the
            device "meta"; the bytes of a file.
        TypeError: neither array nor tensor.
    """
    label = f"{name}: image" if name else "image"
    pixels = _pixels_of(image, label)
    _check_shape(pixels, label, "permute" if is_tensor(image) else "transpose")
    native = pixels.dtype.newbyteorder("=")
    if native not in DTYPES:
        raise ValueError(f"{label} must be {DTYPE_NAMES}, got {pixels.dtype} of shape {pixels.shape}")
    if pixels.dtype.kind == "f":
        _check_unit_range(pixels, label, "to(torch" if is_tensor(image) else "astype(numpy")
    return pixels.astype(native, copy=False)


def _pixels_of(image: Any, label: str) -> np.ndarray:
    """Return an array or tensor as an array, channels last where they are first in a tensor."""
    if is_tensor(image):
        try:
            pixels = image.detach().resolve_neg().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            got = f"{image.dtype}, {image.layout} on {image.device}"
            raise ValueError(f"{label} must be a dense tensor of {DTYPE_NAMES}, got {got}") from error
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
            pixels = pixels.transpose(1, 2, 0)
        return pixels
    if not isinstance(image, np.ndarray):
        kinds = "a path, bytes, an open file, a Pillow image, a numpy array or a torch tensor"
        raise TypeError(f"{label} must be {kinds}, got {type(image).__name__}")
    if np.ma.is_masked(image):
        raise ValueError(f"{label} must have no masked values: fill them, as with image.filled(0)")
    if image.size == max(image.shape, default=0) and image[:4].tobytes().startswith(SIGNATURES):
        raise ValueError(f"{label} must be pixels, got a file in an array: pass its bytes, image.tobytes()")
    return image


def _check_shape(pixels: np.ndarray, label: str, move: str) -> None:
    """Raise ValueError unless this is one picture; `move` names the method that moves channels."""
    got = f"got {pixels.dtype} of shape {pixels.shape}"
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        hint = ""
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
            hint = f"; move the channels last with image.{move}(1, 2, 0)"
        raise ValueError(f"{label} must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), {got}{hint}")
    if 0 in pixels.shape:
        raise ValueError(f"{label} must have at least one pixel, {got}")


def _check_unit_range(pixels: np.ndarray, label: str, convert: str) -> None:
    """Raise ValueError unless floats lie in [0, 1]; `convert` begins a call that makes integers of them."""
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{label} of floats must lie in [0, 1], got NaN or infinity")
    if low < 0 or high > 1:
        hint = ""
        if low >= 0 and high <= 255:
            hint = f"; for grey levels 0..255 convert with image.{convert}.uint8)"
        elif low >= 0 and high <= 65535:
            hint = f"; for grey levels 0..65535 convert with image.{convert}.uint16)"
        raise ValueError(f"{label} of floats must lie in [0, 1], got values from {low:g} to {high:g}{hint}")
