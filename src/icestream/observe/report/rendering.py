"""The page: our frame, which nobody overrides, around sections that facilities do.

The frame holds the content security policy, which lets nothing be loaded and no script run but the one that stands in it; so
whatever a template writes is inert.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from jinja2 import TemplateRuntimeError
from markupsafe import Markup

from icestream.observe import wording
from icestream.observe.charts import draw_share
from icestream.observe.report.content import ReportData
from icestream.observe.report.customising import SECTIONS, Customised
from icestream.observe.report.layers import DENSITY_SCRIPT, Layer, embed_picture
from icestream.observe.report.sandbox import TemplateSandbox

MOST_RECORDS = 200
UNPACKING = """
for (const holder of document.querySelectorAll("[data-density]")) {
  const packed = Uint8Array.from(atob(holder.dataset.density), (one) => one.codePointAt(0));
  new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer()
    .then((content) => showDensity(holder, readDensity(new Uint8Array(content)), holder.dataset.title));
}
"""
"""What turns the maps that are in the report, after the script that turns maps."""

Newest = Callable[[str, int], list[dict[str, Any]]]
"""Type of record and number → the newest records of it."""


class Page:
    """Renders reports of one session; templates are compiled once."""

    def __init__(self, layers: Sequence[Layer], newest: Newest) -> None:
        self.layers = tuple(layers)
        self._sandbox = TemplateSandbox(layers)
        self._newest = newest
        self._sandbox.filters.update(
            counted=wording.counted, moment=wording.moment, clock_time=wording.clock_time, span=wording.span
        )
        self._sandbox.filters["share"] = _share_of
        self._sandbox.globals.update(picture=self._picture, newest=self._records)

    def render(self, data: ReportData, customised: Customised, *, troubles: Sequence[str] = ()) -> str:
        """Fill the templates; what is wrong with those of others is noted and does not keep the page from being made."""
        self._sandbox.problems = customised.problems
        self._sandbox.templates.set_aside.clear()
        units = {unit: (one.unit, one.factor) for unit, one in customised.settings.units.items()}
        self._sandbox.filters["quantity"] = lambda value, unit: _quantity(value, unit, units)
        values = {"data": data, "settings": customised.settings}
        names = [name for name in customised.settings.order if self._is_there(name, customised)]
        sections = [Markup(self._sandbox.render_part(f"{name}.html", **values)) for name in names]  # noqa: S704 - it is escaped
        body = self._sandbox.render_part("report.html", sections=sections, **values)
        style, script = self._texts("style.css", "</"), self._texts("script.js", "</", "<!--", owners=("facility", "icestream"))
        density = DENSITY_SCRIPT.read_text(encoding="utf-8") + UNPACKING if "data-density=" in body else ""
        return self._sandbox.get_template(f"{len(self.layers) - 1}/frame.html").render(
            data=data,
            body=Markup(body),  # noqa: S704 - what the sandbox made is escaped
            problems=customised.problems.found,
            troubles=troubles,
            style=Markup(style),  # noqa: S704 - the texts of files
            script=Markup(script),  # noqa: S704
            density_script=Markup(density) if density else None,  # noqa: S704
            density_hash=_hash_of(density),
            style_hash=_hash_of(style),
            script_hash=_hash_of(script),
        )

    def _is_there(self, name: str, customised: Customised) -> bool:
        try:
            found = self._sandbox.templates.place_of(f"{name}.html") is not None
            said = f"there is no section {name!r}; ours are {', '.join(SECTIONS)}, yours are templates in the folder of this file"
        except ValueError as error:
            found, said = False, str(error)
        if not found:
            customised.tell(("sections", customised.settings.sections.index(name)), said)
        return found

    def _texts(self, name: str, *forbidden: str, owners: Sequence[str] = ("session", "facility", "icestream")) -> str:
        """Return the texts of a file in all folders, ours first: what comes later takes precedence."""
        texts = []
        for layer in reversed(self.layers):
            try:
                path = layer.find(name)
                if path is None:
                    continue
                if layer.owner not in owners:
                    raise ValueError("a session cannot add a script; the facility can")
                text = layer.read_text(path)
                ending = next((mark for mark in forbidden if mark in text), None)
                if ending is not None:
                    raise ValueError(f"contains {ending!r}, which ends what it is part of")
                texts.append(text)
            except ValueError as error:
                self._sandbox.problems.note(layer.folder / name, str(error), "it is left out")
        return "\n".join(texts)

    def _picture(self, name: str) -> str:
        try:
            return embed_picture(self.layers, name)
        except ValueError as error:
            raise TemplateRuntimeError(str(error)) from None

    def _records(self, record: str, count: int = 20) -> list[dict[str, Any]]:
        return self._newest(record, max(0, min(int(count), MOST_RECORDS)))


def _quantity(value: float | str | None, unit: str, units: dict[str, tuple[str, float]]) -> str:
    if isinstance(value, str):
        return value
    shown, factor = units.get(unit, (unit, 1.0))
    return wording.quantity(None if value is None else value * factor, shown)


def _hash_of(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode("utf-8")).digest()).decode("ascii")


def _share_of(step: Any) -> Markup:
    names = ("item", "rejected", "failed", "skipped", "absent", "running", "waiting")
    return draw_share([(name, getattr(step.counts, name)) for name in names])
