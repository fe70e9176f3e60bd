"""Process single-particle cryo-EM data while the microscope is still collecting."""

from pathlib import Path

from icestream.account import prepare_kernel_cache

__version__ = "0.2.0"

prepare_kernel_cache(Path(__file__).parent)
