"""Templates for picking: from a file, or from the session's own 2D classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.ranking import GENEROUS
from icestream.algorithms.template_picker.templates import choose_different, prepare_templates_2d, project_views
from icestream.flow import Angstrom, Context, Field, FileFormatError, Foreseen, ItemError, Params, SourceContext, Watch, step
from icestream.io.image import image_header, read_stack, write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import Acquisition, ClassAverages, ClassSelection, PickTemplates, TemplateFile, TemplateInfo
from icestream.steps.movies.file_source import FileSourceParams, foresee_files, watch_files

_N_VIEWS = 120
_LEAST_SHARE = 0.25  # of an equal share of the particles


class ImportTemplatesParams(FileSourceParams):
    """Which file the templates are made from."""

    root: str = Field("templates", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("*.mrc*", min_length=1, description="Which files: a glob relative to the root")
    kind: Literal["map", "images"] | None = Field(
        None, description="What the file holds; unset: a cube is a map, anything else is images"
    )
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Pixel size; unset: that of the file's header")
    max_files: int | None = Field(
        1,
        ge=1,
        description="Stop looking after this many files; unset: take new ones throughout the session",
        json_schema_extra={"operational": True},
    )


def foresee_templates(params: ImportTemplatesParams, folder: Path) -> Iterator[Foreseen]:
    """Yield what is known of the files beforehand."""
    yield from foresee_files(params, folder, suffixes=None)


@step.source("import_templates", version=1, output=TemplateFile, foresee=foresee_templates)
def import_templates(params: ImportTemplatesParams, ctx: SourceContext) -> Watch:
    """Take a map or a stack of images from which templates are made, as soon as it appears; each exposure uses the newest."""

    def read(path: Path, ref: str) -> tuple[TemplateFile, Acquisition | None]:
        return read_template_file(path, ref, kind=params.kind, pixel_size_ang=params.pixel_size_ang), None

    return watch_files(params, ctx, read, suffixes=None, refuse_broken=True)


def read_template_file(
    path: Path, ref: str, *, kind: Literal["map", "images"] | None, pixel_size_ang: float | None
) -> TemplateFile:
    """Return the record of a file with a map or images.

    Raises
    ------
    FileFormatError
        It is no image, not square, no cube though it is said to be a map, or has no pixel size.
    """
    header = image_header(path)
    pixel_ang = pixel_size_ang or header.pixel_size_ang
    if header.height_px != header.width_px:
        raise FileFormatError(path, f"holds images of {header.height_px} x {header.width_px} px; templates are square")
    cube = header.n_images == header.width_px
    if kind == "map" and not cube:
        raise FileFormatError(path, f"holds {header.n_images} sections of {header.width_px} px; a map is a cube")
    if not pixel_ang:
        raise FileFormatError(path, "has no pixel size in its header; set pixel_size_ang")
    found: Literal["map", "images"] = kind or ("map" if cube else "images")
    return TemplateFile(file=ref, kind=found, count=header.n_images, box_px=header.width_px, pixel_size_ang=pixel_ang)


class MakeTemplatesParams(Params):
    """Which templates are made."""

    diameter_ang: Angstrom = Field(gt=0, description="Diameter of the particle, and of the round mask on the templates")
    classes: list[int] | None = Field(
        None,
        description="Ids of the 2D classes to use; unset: those with at least a quarter of an equal share of the particles and a "
        "score of at least 0.2",
    )
    most: int = Field(48, ge=1, le=200, description="Most templates; time grows with their number")
    alike: float = Field(
        0.97, gt=0, le=1, description="Leave out what correlates this well with a template that is already there, in any turn"
    )
    dark: bool = Field(False, description="Protein is dark in the images of a file")


@step.map("make_templates", version=1, memory_gb=1.0)
def make_templates(
    classes: ClassAverages | None,
    file: TemplateFile | None,
    params: MakeTemplatesParams,
    ctx: Context,
    *,
    selection: ClassSelection | None = None,
) -> PickTemplates:
    """Make templates for picking from 2D classes, from projections of a map, or from images.

    They are made again for each version of the classes or of the file. Give one of the two. With a selection, only of the classes
    that it selects.

    Raises
    ------
    ItemError
        If both or none is given, a class is unknown, the images are smaller than the particle, or nothing is left.
    """
    if (classes is None) == (file is None):
        raise ItemError("templates are made from 2D classes or from a file: connect `classes` or `file`, and not both")
    if classes is not None:
        images, pixel_ang, sources, counts = _read_classes(classes, selection, params, ctx)
        made_from = f"{len(sources)} of {len(classes.classes)} 2D classes of {classes.count} particles"
    else:
        images, pixel_ang = _read_file(file, params, ctx) if file is not None else (np.empty((0, 0, 0), dtype=np.float32), 1.0)
        sources, counts = list(range(len(images))), [None] * len(images)
        made_from = f"{len(images)} " + ("views of a map" if file is not None and file.kind == "map" else "images")
    try:
        templates, at, template_ang = prepare_templates_2d(
            images, pixel_size_ang=pixel_ang, diameter_ang=params.diameter_ang, centre=classes is not None
        )
    except ValueError as error:
        raise ItemError(f"templates: {error}") from error
    if not len(templates) and selection is not None:
        raise ItemError("no templates: no class with enough particles is selected")
    if not len(templates):
        raise ItemError(f"no templates: the {len(images)} images are empty")
    chosen = choose_different(templates, most=params.most, alike=params.alike)
    with ctx.publish("_templates.mrcs") as stack:
        write_mrc(stack.path, templates[chosen], pixel_size_ang=template_ang)
    with ctx.publish("_templates.png") as picture:
        write_mosaic(picture.path, templates[chosen], columns=int(np.ceil(np.sqrt(2 * len(chosen)))))
    origin = [int(at[index]) for index in chosen]
    return PickTemplates(
        stack=stack.ref,
        picture=picture.ref,
        count=len(chosen),
        box_px=templates.shape[-1],
        pixel_size_ang=template_ang,
        diameter_ang=params.diameter_ang,
        made_from=made_from,
        templates=[TemplateInfo(number=n, source=sources[i], count=counts[i]) for n, i in enumerate(origin)],
    )


def _read_classes(
    classes: ClassAverages, selection: ClassSelection | None, params: MakeTemplatesParams, ctx: Context
) -> tuple[NDArray[np.float32], float, list[int], list[int | None]]:
    """Return the averages that are used, the most populous first, their pixel size, ids and particles."""
    averages = {one.id: (index, one.count) for index, one in enumerate(classes.classes)}
    unknown = sorted(set(params.classes or ()) - set(averages))
    if unknown:
        raise ItemError(f"there is no class {unknown[0]}; there are {', '.join(map(str, sorted(averages)))}")
    least = _LEAST_SHARE * classes.count / max(len(averages), 1)
    populous = [one for one in classes.classes if one.count and one.count >= least]
    whole = [one for one in populous if one.score is None or one.score >= GENEROUS] or populous
    used = whole if selection is None else populous
    wanted = params.classes if params.classes is not None else [one.id for one in used]
    if selection is not None:
        wanted = [key for key in wanted if key in {one.id for one in selection.classes if one.selected}]
    wanted = sorted(wanted, key=lambda key: -averages[key][1])
    path = ctx.path(classes.stack)
    pixel_ang = image_header(path).pixel_size_ang
    if not pixel_ang:
        raise ItemError(f"{classes.stack}: has no pixel size in its header")
    images: NDArray[np.float32] = read_stack(path)[[averages[key][0] for key in wanted]]
    return images, pixel_ang, list(wanted), [averages[key][1] for key in wanted]


def _read_file(file: TemplateFile, params: MakeTemplatesParams, ctx: Context) -> tuple[NDArray[np.float32], float]:
    """Return images, or views of a map, and their pixel size."""
    stored = read_stack(ctx.path(file.file))
    images = project_views(stored, pixel_size_ang=file.pixel_size_ang, n_views=_N_VIEWS) if file.kind == "map" else stored
    return (-images if params.dark else images), file.pixel_size_ang * stored.shape[-1] / images.shape[-1]
