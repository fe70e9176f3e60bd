"""The environment in which templates run: escaped, confined to their folders, and each block by itself.

A template is found in the topmost folder that has it. Inside a template, its own name means the one below: ``steps.html`` of a
facility begins with ``{% extends "steps.html" %}`` and changes single blocks of ours. A block that fails gives way to the one
below it; an included file that fails gives way to that of the folder below.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CodeType, MethodType, TracebackType
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateNotFound, TemplateRuntimeError, TemplateSyntaxError
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import TemplateError
from jinja2.nodes import ScopedEvalContextModifier
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner

from icestream.observe.report.layers import Layer
from icestream.observe.report.problems import Problem, ProblemList

MOST_CHARACTERS = 8_000_000
"""A block that writes more is not shown."""

MISTAKES = (TemplateError, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What a template that is wrong may raise."""

_Block = Callable[[Context], Iterator[str]]
_PLAIN = (str, int, float, list, tuple, dict, set, frozenset)
_RUNTIME = (BlockReference, LoopContext, Macro, Cycler, Joiner)


class LayeredTemplates(BaseLoader):
    """Finds templates by folder and name: ``1/steps.html`` is that of the second folder."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.set_aside: set[Path] = set()
        """Files that are wrong: those of the folders below are taken instead."""

    def place_of(self, name: str, *, below: int = -1) -> str | None:
        """Return where a template is, in a folder after number ``below``."""
        for index, layer in enumerate(self.layers):
            path = layer.find(name) if index > below else None
            if path is not None and path not in self.set_aside:
                return f"{index}/{name}"
        return None

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Read a template."""
        index, _, name = template.partition("/")
        layer = self.layers[int(index)] if index.isdigit() else None
        path = None if layer is None else layer.find(name)
        if layer is None or path is None:
            raise TemplateNotFound(name or template)
        stamp = path.stat().st_mtime_ns, path.stat().st_size
        try:
            text = layer.read_text(path)
        except ValueError as error:
            raise TemplateSyntaxError(str(error), 1, name, str(path)) from None

        def is_current() -> bool:
            return path.is_file() and (path.stat().st_mtime_ns, path.stat().st_size) == stamp

        return text, str(path), is_current


class _AlwaysEscaped(CodeGenerator):
    """Refuses templates that switch escaping off."""

    def visit_ScopedEvalContextModifier(self, node: ScopedEvalContextModifier, frame: Any) -> None:  # noqa: N802 - Jinja's name
        self.fail("escaping cannot be switched off", node.lineno)


class _GuardedTemplate(Template):
    """A template of which each block that fails gives way to the one below."""

    @classmethod
    def from_code(
        cls,
        environment: Environment,
        code: CodeType,
        globals: MutableMapping[str, Any],
        uptodate: Callable[[], bool] | None = None,
    ) -> Template:
        template = super().from_code(environment, code, globals, uptodate)
        if isinstance(environment, TemplateSandbox):
            template.blocks = {name: environment.guard(name, block) for name, block in template.blocks.items()}
        return template


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Runs templates; what is wrong with them is noted, and raised only where none but ours is to blame."""

    code_generator_class = _AlwaysEscaped
    template_class = _GuardedTemplate

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.templates = LayeredTemplates(layers)
        self.problems = ProblemList()
        """Where mistakes are noted; that of the report that is being made."""
        super().__init__(loader=self.templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        del self.filters["safe"]
        self.policies["json.dumps_kwargs"] = {"ensure_ascii": False}

    def join_path(self, template: str, parent: str) -> str:
        """Return where a template is that another one names; its own name is that of the folder below."""
        index, _, own = parent.partition("/")
        try:
            return self.templates.place_of(template, below=int(index) if own == template else -1) or template
        except ValueError as error:
            raise TemplateRuntimeError(str(error)) from None

    def is_safe_callable(self, obj: Any) -> bool:
        """Allow what Jinja makes, methods of plain values, and what we offer; never a method of ours."""
        if isinstance(obj, MethodType | BuiltinFunctionType):
            return isinstance(obj.__self__, (*_PLAIN, *_RUNTIME)) and bool(super().is_safe_callable(obj))
        return isinstance(obj, _RUNTIME) or obj in self.globals.values() or obj is dict

    def render_page(self, name: str, **values: Any) -> str:
        """Fill a template; of one that is wrong outside its blocks, that of the folder below is taken."""
        while True:
            try:
                place = self.templates.place_of(name)
                return self.get_template(place or name).render(**values)
            except MISTAKES as error:
                self.blame(error, "the one below it is used")

    def guard(self, name: str, block: _Block) -> _Block:
        """Return a block that gives way where it fails."""

        def guarded(context: Context) -> Iterator[str]:
            while True:
                try:
                    yield from _bounded(block(context), name)
                except MISTAKES as error:
                    below = _below(guarded, context.blocks.get(name, []))
                    path = self._path_of(context.name)
                    if path is None:  # ours: a file of somebody's that it includes is wrong
                        self.blame(error, "ours is used")
                        continue
                    self.blame(
                        error, f"the block {name!r} below it is used" if below else f"the block {name!r} is left out", at=path
                    )
                    if below is not None:
                        yield from below(context)
                return

        return guarded

    def blame(self, error: Exception, instead: str, *, at: Path | None = None) -> None:
        """Note a mistake where it is; raise it again if no file but ours is to blame. ``at`` is not set aside as a whole."""
        file, line = self._find(error)
        if file is None:
            file, line = at, None
        if file is None or (at is None and file in self.templates.set_aside):
            raise error
        self.problems.add(Problem(file, line, _describe(error), instead))
        if at is None:
            self.templates.set_aside.add(file)

    def _find(self, error: Exception) -> tuple[Path | None, int | None]:
        """Return the file and line of the innermost template of somebody's own that an error comes from."""
        found: tuple[Path | None, int | None] = (None, None)
        step: TracebackType | None = error.__traceback__
        while step is not None:
            template = step.tb_frame.f_globals.get("__jinja_template__")
            if isinstance(template, Template) and self._path_of(template.name) is not None:
                found = Path(str(template.filename)), template.get_corresponding_lineno(step.tb_lineno)
            step = step.tb_next
        if isinstance(error, TemplateSyntaxError) and error.filename is not None and self._is_somebodys(Path(error.filename)):
            found = Path(error.filename), error.lineno
        return found

    def _path_of(self, name: str | None) -> Path | None:
        """Return the file of a template, if it is not ours."""
        index, _, own = (name or "").partition("/")
        layer = self.templates.layers[int(index)] if index.isdigit() else None
        return None if layer is None or layer.owner == "icestream" else layer.folder / own

    def _is_somebodys(self, path: Path) -> bool:
        return any(path.is_relative_to(layer.folder) for layer in self.templates.layers if layer.owner != "icestream")


def _bounded(pieces: Iterator[str], name: str) -> list[str]:
    written, length = [], 0
    for piece in pieces:
        written.append(piece)
        length += len(piece)
        if length > MOST_CHARACTERS:
            raise TemplateRuntimeError(f"the block {name!r} writes more than {MOST_CHARACTERS // 1_000_000} MB")
    return written


def _below(block: _Block, stack: Sequence[_Block]) -> _Block | None:
    """Return the block that another one overrides."""
    after = [other for index, other in enumerate(stack) if block in stack[:index]]
    return after[0] if after else None


def _describe(error: Exception) -> str:
    if isinstance(error, TemplateNotFound):
        return f"there is no template {error.name!r}"
    said = error.message if isinstance(error, TemplateError) and error.message else str(error)
    return " ".join((said or type(error).__name__).split())[:400]
