"""Programs of RELION (https://github.com/3dem/relion, GPL-2.0), run as they are installed."""
