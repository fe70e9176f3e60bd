"""Compare motion correction and the power spectrum for the CTF on cores and on a GPU: results, and the time of each part.

python benchmarks/gpu_motion.py                                   # CuPy, else PyTorch, else array-api-strict
python benchmarks/gpu_motion.py --namespace torch --side 1024 --frames 12

Prints one line of JSON. Movies an hour are told only for movies of 4096² × 40 on a GPU, each read from a TIFF-LZW file by one
process; what this machine cannot measure is named under ``missing``.
"""

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from tifffile import TiffWriter

from icestream.algorithms.frc import fourier_ring_correlation_2d
from icestream.algorithms.motion.align import align_movie
from icestream.algorithms.motion.frames import inspect_frames
from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.motion.sum import DoseModel, sum_movie
from icestream.algorithms.namespaces import CORES, Place
from icestream.algorithms.spectra.spectrum import power_spectra
from icestream.io.image import write_mrc
from icestream.io.movie import open_movie
from icestream.steps.motion.reading import HeldFrames
from motion_speed import make_movie

DOSE = DoseModel(voltage_kv=300, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=1.0, pre_exposure_e_per_ang2=0)
MODULES = {"cupy": "array_api_compat.cupy", "torch": "array_api_compat.torch", "array-api-strict": "array_api_strict"}
TILE_PX = 512


class Machine:
    """One library on one device: where arrays go, and how to wait until it has done what it was told."""

    def __init__(self, name, device):
        self.name, self.xp = name, importlib.import_module(MODULES[name])
        self.is_gpu, self.said = False, "cores"
        library = importlib.import_module(name.replace("-", "_"))
        self.version = library.__version__
        if name == "cupy":
            self.is_gpu, device = True, library.cuda.Device(0)
            self.said = library.cuda.runtime.getDeviceProperties(0)["name"].decode()
        elif name == "torch":
            device = device or ("cuda:0" if library.cuda.is_available() else "cpu")
            self.is_gpu = device.startswith("cuda")
            self.said = library.cuda.get_device_name(device) if self.is_gpu else "cores"
        else:
            device = self.xp.Device("device1")
        self.library, self.place = library, Place(self.xp, device)

    def wait(self):
        """Return when the device has done what it was told."""
        if self.is_gpu and self.name == "cupy":
            self.library.cuda.Device(0).synchronize()
        elif self.is_gpu:
            self.library.cuda.synchronize()


class Cores:
    """NumPy."""

    name, version, place, is_gpu, said = "numpy", np.__version__, CORES, False, "cores"

    def wait(self):
        """Return: NumPy has done what it was told."""


def first_available(name, device):
    """Return the machine that is asked for, or the first library that can be imported and used."""
    if name is not None:
        return Machine(name, device)
    for candidate in MODULES:
        try:
            return Machine(candidate, device)
        except (ImportError, RuntimeError):
            continue
    raise SystemExit(f"none of {', '.join(MODULES)} can be used here: install one")


def measure(machine, raw):
    """Return what came out, and the seconds of wall clock of each part."""
    clock = []

    def tick():
        machine.wait()
        clock.append(time.perf_counter())

    tick()
    frames = [machine.place.put(frame) for frame in raw]
    tick()
    detector = inspect_frames(frames, None, operation="multiply")
    tick()
    motion = align_movie(frames, detector, max_shift_px=100.0)
    tick()
    track, local = motion.global_yx_px, motion.local_coefficients
    sums = sum_movie(frames, detector, global_yx_px=track, local_coefficients=local, dose=DOSE)
    tick()
    spectra = power_spectra(sums.plain, tile_px=min(TILE_PX, min(detector.shape) // 2), n_sets=2)
    tick()
    host = sums.to_numpy()
    tick()
    names = ("transfer", "inspect", "align", "sum", "ctf_spectrum", "back")
    return (motion, host, spectra), dict(zip(names, np.round(np.diff(clock), 4).tolist(), strict=True))


def compare(first, second, *, n_frames):
    """Return by how much two results differ."""
    (motion, sums, spectra), (other, other_sums, other_spectra) = first, second
    shape = sums.plain.shape
    y, x = (grid[None] for grid in np.meshgrid(*[np.linspace(0, side - 1, 5) for side in shape], indexing="ij"))
    fields = []
    for one in (motion, other):
        field = one.global_yx_px.T[:, :, None, None]
        if one.local_coefficients is not None:
            place = {"frame": np.arange(n_frames)[:, None, None], "y_px": y, "x_px": x, "shape": shape, "n_frames": n_frames}
            field = field + local_shift_px(one.local_coefficients, **place)
        fields.append(field)
    found = {"worst_shift_px": float(np.abs(fields[0] - fields[1]).max())}
    for name in ("plain", "weighted"):
        image, same = getattr(sums, name), getattr(other_sums, name)
        found[f"{name}_worst_sd"] = float(np.abs(image - same).max() / image.std())
        found[f"{name}_least_frc"] = float(fourier_ring_correlation_2d(image, same)[1][1:].min())
    found["spectrum_worst"] = float(np.abs(other_spectra / spectra - 1)[:, 2:, 2:].max())
    return {name: float(f"{value:.3g}") if "frc" not in name else round(value, 6) for name, value in found.items()}


def time_whole(machine, raw):
    """Return the seconds from a TIFF-LZW file to two written sums and the spectrum: the second time, when all is warm."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "movie.tiff"
        with TiffWriter(path) as writer:
            for frame in raw:
                writer.write(frame, compression="lzw")
        for _ in range(2):
            began = time.perf_counter()
            with open_movie(path) as reader:
                frames = HeldFrames(reader, 0, len(raw), place=machine.place)
                detector = inspect_frames(frames, None, operation="multiply")
                motion = align_movie(frames, detector, max_shift_px=100.0)
                track, local = motion.global_yx_px, motion.local_coefficients
                sums = sum_movie(frames, detector, global_yx_px=track, local_coefficients=local, dose=DOSE)
                power_spectra(sums.plain, tile_px=TILE_PX, n_sets=2)
                host = sums.to_numpy()
            for suffix, image in (("plain", host.plain), ("weighted", host.weighted)):
                if image is None:
                    raise SystemExit(f"no {suffix} sum was made")
                write_mrc(Path(name) / f"{suffix}.mrc", image, pixel_size_ang=1.0, remember=False)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--namespace", choices=sorted(MODULES), help="unset: the first that can be used")
    parser.add_argument("--device", help="of torch, such as cuda:0 or cpu")
    options = parser.parse_args()
    machine = first_available(options.namespace, options.device)
    small = [np.ascontiguousarray(frame[:512, :512]) for frame in make_movie(512, 4)[0]]
    raw, shifts = make_movie(options.side, options.frames)
    report = {"side": options.side, "frames": options.frames, "namespace": machine.name, "version": machine.version}
    report["device"] = machine.said
    results = []
    for one in (Cores(), machine):
        measure(one, small)  # compile, load libraries
        result, report[f"{one.name}_s"] = measure(one, raw)
        results.append(result)
    report["worst_error_px"] = round(float(np.abs(results[1][0].global_yx_px - shifts).max()), 3)
    report["difference"] = compare(*results, n_frames=options.frames)
    if machine.is_gpu and (options.side, options.frames) == (4096, 40):
        report["whole_s"] = round(time_whole(machine, raw), 3)
        report["movies_per_hour"] = round(3600 / report["whole_s"])
    else:
        reason = f"{machine.name} computes on cores here" if not machine.is_gpu else f"{options.side}² × {options.frames}"
        report["missing"] = {"movies_per_hour": f"measured for 4096² × 40 on a GPU; {reason}"}
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
