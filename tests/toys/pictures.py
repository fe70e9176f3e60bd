"""A step that gives a micrograph the picture that a page shows of it."""

from icestream.flow import Context, step
from icestream.io.image import read_image
from icestream.io.preview import write_preview
from icestream.records import Micrograph


@step.map("toy_picture", version=1, memory_gb=0.1)
def draw_picture(micrograph: Micrograph, ctx: Context) -> Micrograph:
    """Publish a picture of a micrograph."""
    with ctx.publish("_picture.png") as out:
        write_preview(out.path, read_image(ctx.path(micrograph.image)))
    return micrograph.model_copy(update={"thumbnail": out.ref})
