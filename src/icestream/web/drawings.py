"""The addresses of what is drawn when somebody asks for it: micrographs in full resolution, and pictures of single particles."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.params import Path as PathParameter

from icestream.errors import FileFormatError
from icestream.io.density import read_density
from icestream.io.pyramid import is_whole_jpeg, read_pyramid_index, read_tile
from icestream.observe.drawing.finding import find_density, find_members, find_micrograph, find_particles, say_what_was_removed
from icestream.observe.drawing.order import AnyOrder, NotDrawn, NothingToDraw
from icestream.observe.queries import SessionView, open_view
from icestream.web.site import Answer, SessionName, Site, ThisSite

ASK_AGAIN_S = 2
LOOK_AGAIN = "private, no-cache"
"""What an address shows changes with how drawings are made, so a browser asks each time; if nothing has, it is told so (304)."""

router = APIRouter(prefix="/api/v1/sessions/{session}/drawings", tags=["sessions"])

Key = Annotated[str, PathParameter(max_length=200, description="Key of a result")]
_Number = PathParameter(ge=0, lt=2**31)
Level = Annotated[int, _Number]
Place = Annotated[int, _Number]

_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    304: {"description": "It is what the caller has"},
}

Found = TypeVar("Found")


class TileLevel(Answer):
    """One scale of an image: its size, and how many tiles it has."""

    height_px: int
    width_px: int
    rows: int
    columns: int


class Tiles(Answer):
    """An image in full resolution as tiles; level 0 is the full resolution, each further one half of it."""

    height_px: int
    width_px: int
    tile_px: int
    levels: list[TileLevel]


@router.get("/micrographs/{key}", summary="An image in full resolution: the sizes of its tiles, which are drawn if need be")
def tiles(session: SessionName, key: Key, site: ThisSite, response: Response) -> Tiles:
    """Return what tiles an image has; it is drawn meanwhile, once."""
    index = _draw(site, session, _find_now(site, session, lambda view: find_micrograph(view, key)), read_pyramid_index)
    response.headers["cache-control"] = LOOK_AGAIN
    return Tiles.model_validate(index)


@router.get(
    "/micrographs/{key}/tiles/{level}/{row}/{column}",
    summary="A tile of an image in full resolution; rows count from the top",
    response_class=Response,
    responses=_PICTURE,
)
def tile(
    session: SessionName, key: Key, level: Level, row: Place, column: Place, *, site: ThisSite, request: Request
) -> Response:
    """Return a tile as JPEG."""
    order = _find_now(site, session, lambda view: find_micrograph(view, key))
    return _send(
        request,
        f"{order.name}-{level}-{row}-{column}",
        lambda: _draw(site, session, order, lambda path: read_tile(path, level, row, column)),
    )


@router.get(
    "/particles/{key}",
    summary="The particles of a record side by side, 100 on a page, 10 in a row",
    response_class=Response,
    responses=_PICTURE,
)
def particles(
    session: SessionName,
    key: Key,
    site: ThisSite,
    request: Request,
    page: Annotated[int, Query(ge=0, lt=2**31, description="Which hundred, from 0")] = 0,
) -> Response:
    """Return a picture of particles as JPEG."""
    order = _find_now(site, session, lambda view: find_particles(view, key, page))
    return _send(request, order.name, lambda: _draw(site, session, order, _read_picture))


@router.get(
    "/members/{step}",
    summary="The newest 64 members of a class side by side, 8 in a row",
    response_class=Response,
    responses=_PICTURE,
)
def members(
    session: SessionName,
    step: Annotated[str, PathParameter(max_length=255)],
    site: ThisSite,
    request: Request,
    part: Annotated[int, Query(ge=0, lt=2**31)],
    seen: Annotated[str, Query(max_length=100, description="Any text: a browser asks again where it is another")] = "",  # noqa: ARG001
) -> Response:
    """Return a picture of members as JPEG; which these are changes while particles come."""
    try:
        order, _ = site.live.read(session, f"drawn members {step} {part}", lambda view: find_members(view, step, part))
    except NothingToDraw as error:
        raise HTTPException(404, str(error)) from None
    return _send(request, order.name, lambda: _draw(site, session, order, _read_picture))


@router.get(
    "/densities/{key}",
    summary="A map as a cube of at most 64 voxels a side: a line of JSON (side, voxel_ang, low, high, level), then a byte for "
    "each voxel, x fastest; 0 is low, 255 is high, and level is where a surface is drawn first",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, 304: {"description": "It is what the caller has"}},
)
def density(
    session: SessionName,
    key: Key,
    site: ThisSite,
    request: Request,
    part: Annotated[
        int | None, Query(ge=0, lt=2**31, description="Which of its parts, of a record that has several maps")
    ] = None,
) -> Response:
    """Return a map, reduced to what a browser turns."""
    order = _find_now(site, session, lambda view: find_density(view, key, part))
    return _send(request, order.name, lambda: _draw(site, session, order, read_density), kind="application/octet-stream")


def _find_now(site: Site, session: str, find: Callable[[SessionView], AnyOrder]) -> AnyOrder:
    with open_view(site.places.open(session)) as view:
        try:
            return find(view)
        except NothingToDraw as error:
            raise HTTPException(404, str(error)) from None


def _draw(site: Site, session: str, order: AnyOrder, read: Callable[[Path], Found]) -> Found:
    """Return what is read of the file of a drawing; one that is damaged is drawn anew, once."""
    try:
        path = site.studio.draw(order)
        try:
            return read(path)
        except FileFormatError:
            site.studio.cache.drop(path.name)
            return read(site.studio.draw(order))
    except FileFormatError as error:
        raise _later(f"the drawing is damaged: {error.reason}") from None
    except NothingToDraw as error:
        with open_view(site.places.open(session)) as view:
            raise HTTPException(404, say_what_was_removed(view, order, str(error))) from None
    except NotDrawn as error:
        raise _later(str(error)) from None
    except FileNotFoundError:
        raise _later("the drawing has just made room for others; ask again") from None


def _later(why: str) -> HTTPException:
    return HTTPException(503, why, headers={"retry-after": str(ASK_AGAIN_S)})


def _read_picture(path: Path) -> bytes:
    content = path.read_bytes()
    if not is_whole_jpeg(content):
        raise FileFormatError(path, "no whole JPEG")
    return content


def _send(request: Request, name: str, draw: Callable[[], bytes | None], *, kind: str = "image/jpeg") -> Response:
    """Send a picture, or say that the caller has it, for which nothing is drawn."""
    headers = {"etag": f'"{name}"', "cache-control": LOOK_AGAIN}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if headers["etag"] in known:
        return Response(status_code=304, headers=headers)
    if (content := draw()) is None:
        raise HTTPException(404, "there is no such tile")
    return Response(content, media_type=kind, headers=headers)
