"""Power spectra of images."""
