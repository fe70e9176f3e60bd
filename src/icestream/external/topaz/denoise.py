"""Denoising with the models that come with Topaz."""

from icestream.external import Command, run_program, stage_image
from icestream.external.topaz.program import TOPAZ, device_words
from icestream.flow import Context, Field, FileFormatError, Params, step
from icestream.io.image import read_image, write_mrc
from icestream.io.preview import write_preview
from icestream.records import BEPLER_2020, Acquisition, DenoisedMicrograph, Method, Micrograph, Text

_IMAGE, _OUT = "micrograph.mrc", "denoised"
_PREVIEW_PX = 1024


class TopazDenoiseParams(Params):
    """Which model denoises, and in how large pieces."""

    model: str = Field(
        "unet", pattern=r"^(unet|unet-small|fcnn|affine|unet-v0\.2\.1)$", description="Model that comes with Topaz"
    )
    patch_px: int = Field(1024, ge=64, description="Side of the pieces that are denoised at a time, in pixels")
    padding_px: int = Field(200, ge=0, description="What is looked at around each piece, in pixels")


@step.map(
    "topaz_denoise",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=6.0,
    programs=(TOPAZ,),
    method=Method((Text("Micrographs were denoised for display with Topaz."),), (BEPLER_2020,)),
)
def denoise_with_topaz(
    micrograph: Micrograph, params: TopazDenoiseParams, acquisition: Acquisition, ctx: Context
) -> DenoisedMicrograph:
    """Denoise a micrograph with Topaz, for eyes; Topaz is run in the environment that it is installed in.

    The network was trained on other micrographs: what it shows is likely, not measured.

    Raises
    ------
    ItemError
        The pixel size is unset, or Topaz fails.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    stage_image(ctx.path(micrograph.image), ctx.work_folder, _IMAGE, pixel_size_ang=pixel_ang)
    command = (
        Command()
        .word("denoise")
        .option("-m", params.model)
        .option("-o", _OUT)
        .option("-s", params.patch_px)
        .option("-p", params.padding_px)
    )
    run_program(TOPAZ, Command((*command.arguments, *device_words(ctx).arguments, _IMAGE)), ctx)
    path = ctx.work_folder / _OUT / _IMAGE
    found = read_image(path)
    if found.shape != (micrograph.height_px, micrograph.width_px):
        raise FileFormatError(path, f"is {found.shape} px; the micrograph is {micrograph.height_px} x {micrograph.width_px}")
    with ctx.publish("_denoised.mrc") as image:
        write_mrc(image.path, found, pixel_size_ang=pixel_ang, dtype="float16")
    with ctx.publish("_denoised.png") as picture:
        write_preview(picture.path, found, max_px=_PREVIEW_PX, percentiles=(0.5, 99.5))
    return DenoisedMicrograph(
        image=image.ref,
        height_px=micrograph.height_px,
        width_px=micrograph.width_px,
        bin=micrograph.bin,
        method="network",
        picture=picture.ref,
    )
