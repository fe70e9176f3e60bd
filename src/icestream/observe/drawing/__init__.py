"""Pictures that are drawn when somebody asks for them: micrographs in full resolution, images of particles, and maps.

`finding` says, from the store, what is to be drawn (an `order`); `studio` has it drawn once by a `worker`, a process of its own,
and keeps it in the `cache`. Only the worker opens images.
"""
