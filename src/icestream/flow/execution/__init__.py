"""Where steps run: worker processes of this machine, dask workers, jobs of Slurm; one interface."""
