"""What this machine can compute on: CPU or CUDA, and with which numbers."""

import ctypes
import importlib.util
import sys
from pathlib import Path

import ctranslate2
import structlog

from actors.errors import DeviceUnavailable
from actors.settings import ActorSettings

log = structlog.get_logger()

#: What `auto` takes, the first that the device has.
_PREFERRED = {
    "cpu": ("int8", "int8_float32", "float32"),
    "cuda": ("float16", "int8_float16", "int8_float32", "float32"),
}

#: What CTranslate2 opens when the first model is loaded on CUDA, in the order in which they need one another.
_CUDA_LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")


def choose_device(settings: ActorSettings) -> tuple[str, str]:
    """The device (cpu or cuda) and the compute type that the settings ask for.

    Raises:
        DeviceUnavailable: the machine does not have it; the message says in one sentence what is missing.
    """
    device = "cpu"
    if settings.whisper_device != "cpu":
        try:
            _require_cuda()
            device = "cuda"
        except DeviceUnavailable as reason:
            if settings.whisper_device == "cuda":
                raise
            log.info("CUDA is not used", reason=str(reason))
    return device, _compute_type(device, settings.whisper_compute_type)


def _compute_type(device: str, wanted: str) -> str:
    supported = ctranslate2.get_supported_compute_types(device)
    if wanted == "auto":
        return next(kind for kind in _PREFERRED[device] if kind in supported)
    if wanted not in supported:
        there = ", ".join(sorted(supported))
        raise DeviceUnavailable(f"WHISPER_COMPUTE_TYPE={wanted} does not work on {device} here, which has {there}")
    return wanted


def _require_cuda() -> None:
    """Make sure that a CUDA device and the libraries for it are there, and load them."""
    try:
        devices = ctranslate2.get_cuda_device_count()
    except RuntimeError as error:
        raise DeviceUnavailable(f"CUDA does not work on this machine: {error}") from error
    if not devices:
        raise DeviceUnavailable("CUDA does not work on this machine: no NVIDIA device or no driver for one is there")
    if sys.platform == "linux":
        for name in _CUDA_LIBRARIES:
            _load(name)


def _load(name: str) -> None:
    """Load a library of CUDA from its wheel, where the dynamic linker does not look, else from the system.

    CTranslate2 asks for it by name later and is given what is loaded already, without LD_LIBRARY_PATH.
    """
    try:
        ctypes.CDLL(_in_wheel(name) or name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise DeviceUnavailable(
            f"CUDA does not work on this machine: {name} cannot be loaded, which the extra `cuda` brings ({error})"
        ) from error


def _in_wheel(name: str) -> str | None:
    """Path of a library that a wheel of NVIDIA's has brought, such as nvidia-cublas-cu12."""
    package = importlib.util.find_spec("nvidia")
    for folder in (package and package.submodule_search_locations) or ():
        for path in Path(folder).glob(f"*/lib/{name}"):
            return str(path)
    return None
