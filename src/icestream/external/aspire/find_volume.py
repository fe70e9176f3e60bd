"""Finds an initial volume with ASPIRE; run as a program by the Python of ASPIRE's own environment, never imported by icestream.

``find_volume.py PARTICLES PIXEL_SIZE_ANG SIZE NEIGHBOURS AVERAGES SEED OUT``: the particles of a STAR file are brought to SIZE
pixels, phase-flipped and whitened; AVERAGES class averages of NEIGHBOURS particles each are oriented by the lines that their
transforms share (Pragier & Shkolnisky 2019); their reconstruction is written to OUT.
"""

import sys

from aspire.abinitio import CLSync3N
from aspire.denoising import DefaultClassAvgSource
from aspire.reconstruction import MeanEstimator
from aspire.source import OrientedSource, RelionSource


def main() -> None:
    """Find a volume as the arguments say."""
    particles, pixel_size_ang, size, neighbours, averages, seed, out = sys.argv[1:]
    source = RelionSource(particles, data_folder=".", pixel_size=float(pixel_size_ang))
    source = source.downsample(int(size)).phase_flip().normalize_background().legacy_whiten().cache()
    tell(0.1)
    averaged = DefaultClassAvgSource(source, n_nbor=int(neighbours), num_procs=1)[: int(averages)].cache()
    tell(0.5)
    oriented = OrientedSource(averaged, CLSync3N(averaged, n_theta=360, seed=int(seed)))
    volume = MeanEstimator(oriented).estimate()
    tell(0.95)
    volume.save(out, overwrite=True)


def tell(fraction: float) -> None:
    """Say how far it has come."""
    sys.stdout.write(f"progress {fraction}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
