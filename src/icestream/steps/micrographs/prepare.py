"""Bring imported micrographs into the session: one format, with a thumbnail."""

import numpy as np

from icestream.errors import ItemError
from icestream.flow import Context, step
from icestream.io.image import read_image, write_mrc
from icestream.io.preview import write_preview
from icestream.records import Acquisition, Micrograph


@step.map("prepare_micrograph", version=1, reads=("pixel_size_ang",))
def prepare_micrograph(micrograph: Micrograph, acquisition: Acquisition, ctx: Context) -> Micrograph:
    """Convert an imported micrograph to a 32-bit MRC file of the session and draw its thumbnail."""
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    if not np.isfinite(image).all():
        raise ItemError(f"{micrograph.image}: has values that are not finite")
    if float(image.min()) == float(image.max()):
        raise ItemError(f"{micrograph.image}: is empty: every pixel is {float(image.min()):g}")
    with ctx.publish(".mrc") as converted:
        write_mrc(converted.path, image, pixel_size_ang=pixel_size_ang)
    with ctx.publish("_thumb.jpg") as thumbnail:
        write_preview(thumbnail.path, image)
    return micrograph.model_copy(update={"image": converted.ref, "thumbnail": thumbnail.ref})
