"""The environment in which templates run: escaped, confined to their folders, and each block by itself.

A template is found in the topmost folder that has it. Inside a template, its own name means the one below: ``steps.html`` of a
facility begins with ``{% extends "steps.html" %}`` and changes single blocks of ours. A block that fails gives way to the one
that it overrides, and a template that fails outside its blocks to that of the folder below.
"""

import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CodeType, MethodType, TracebackType
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateNotFound, TemplateRuntimeError, TemplateSyntaxError
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateError
from jinja2.nodes import Call, EnvironmentAttribute, For, ScopedEvalContextModifier
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner

from icestream.observe.report.layers import Layer
from icestream.observe.report.problems import Problem, ProblemList

MOST_CHARACTERS = 50_000_000
"""A section that is longer is not shown."""

MOST_TURNS = 1_000_000
"""So many turns of loops and calls one section may take; making a text of 1,000 characters by repetition counts as one."""

MISTAKES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template that is wrong may raise."""

_Block = Callable[[Context], Iterator[str]]
_MOST_BITS = 10_000
_GROWING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
"""Methods of texts, and filters, of which a short argument makes a long text."""

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


class _Confined(CodeGenerator):
    """Refuses templates that switch escaping off, and has the turns of loops counted."""

    def visit_ScopedEvalContextModifier(self, node: ScopedEvalContextModifier, frame: Any) -> None:  # noqa: N802 - Jinja's name
        self.fail("escaping cannot be switched off", node.lineno)

    def visit_For(self, node: For, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        if node.recursive:
            self.fail("loops that call themselves are not allowed", node.lineno)
        node.iter = Call(EnvironmentAttribute("counted"), [node.iter], [], None, None, lineno=node.lineno)
        super().visit_For(node, frame)


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
            template.blocks = {name: _GuardedBlock(environment, name, block) for name, block in template.blocks.items()}
        return template


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Runs templates; what is wrong with them is noted, and raised only where none but ours is to blame."""

    code_generator_class = _Confined
    intercepted_binops = frozenset({"*", "**", "%"})
    template_class = _GuardedTemplate

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.templates = LayeredTemplates(layers)
        self.problems = ProblemList()
        """Where mistakes are noted; that of the report that is being made."""
        super().__init__(loader=self.templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        for name in ("safe", *_GROWING & set(self.filters)):
            del self.filters[name]
        del self.globals["lipsum"]
        self._turns = 0
        self.policies["json.dumps_kwargs"] = {"ensure_ascii": False}

    def join_path(self, template: str, parent: str) -> str:
        """Return where a template is that another one names; its own name is that of the folder below."""
        index, _, own = parent.partition("/")
        try:
            return self.templates.place_of(template, below=int(index) if own == template else -1) or template
        except ValueError as error:
            raise TemplateRuntimeError(str(error)) from None

    def is_safe_callable(self, obj: Any) -> bool:
        """Allow what we offer, what Jinja makes, and methods of plain values; never a method of anything of ours."""
        if any(obj is offered for offered in self.globals.values()) or obj == self.counted:
            return True
        if isinstance(obj, MethodType | BuiltinFunctionType):
            return isinstance(obj.__self__, (*_PLAIN, *_RUNTIME)) and bool(super().is_safe_callable(obj))
        return isinstance(obj, _RUNTIME)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja names them
        """Call something that is allowed; macros can call themselves, so each call is counted."""
        __self.spend(1)
        if isinstance(__obj, BuiltinFunctionType) and __obj.__name__ in _GROWING:
            raise TemplateRuntimeError(f"the method {__obj.__name__} of texts is not allowed")
        return super().call(__context, __obj, *args, **kwargs)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Give what a loop goes through; together the loops of a section take at most `MOST_TURNS` turns."""
        for item in items:
            self.spend(1)
            yield item

    def spend(self, turns: int) -> None:
        """Take turns from those that a section has."""
        self._turns += turns
        if self._turns > MOST_TURNS:
            raise TemplateRuntimeError(f"takes more than {MOST_TURNS:,} turns of loops and calls")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless what comes out could be huge."""
        if operator == "*" and _size_of(left) * _size_of(right):
            texts = [one for one in (left, right) if hasattr(one, "__len__")]
            size = max(0, _size_of(left) * _size_of(right)) if texts else 0
            if size > MOST_CHARACTERS:
                raise TemplateRuntimeError(f"repeats something to more than {MOST_CHARACTERS:,} characters or members")
            self.spend(size // 1000)
        elif operator == "%" and isinstance(left, str):
            raise TemplateRuntimeError("texts are not formatted by %; write them one after the other, with ~")
        elif operator == "**" and all(isinstance(one, int) for one in (left, right)) and left.bit_length() * right > _MOST_BITS:
            raise TemplateRuntimeError(f"{left} ** {right} is too large")
        return super().call_binop(context, operator, left, right)

    def render_part(self, name: str, **values: Any) -> str:
        """Fill a template; where one of somebody's own fails outside its blocks, that of the folder below is taken."""
        while True:
            place, self._turns = self.templates.place_of(name), 0
            try:
                text = self.get_template(place or name).render(**values)
                if len(text) > MOST_CHARACTERS:
                    raise TemplateRuntimeError(f"writes more than {MOST_CHARACTERS // 1_000_000} MB")
                if re.search("<meta", text, re.IGNORECASE):
                    raise TemplateRuntimeError("writes a `meta` element, which could lead whoever reads the report elsewhere")
            except MISTAKES as error:
                self.blame(error, self.path_of(place), "the one below it is used")
            else:
                return text

    def blame(self, error: Exception, path: Path | None, instead: str, *, whole: bool = True) -> None:
        """Note a mistake where it is, or in the file at ``path``; raise it again if no file but ours is to blame.

        The file that was being filled, ``path``, is set aside as a ``whole``, so that the one of the folder below is found.
        """
        file, line = self._find(error)
        if path is None:
            raise error
        self.problems.add(Problem(file or path, line, _describe(error), instead))
        if whole:
            self.templates.set_aside.add(path)

    def _find(self, error: Exception) -> tuple[Path | None, int | None]:
        """Return the file and line of the innermost template of somebody's own that an error comes from."""
        found: tuple[Path | None, int | None] = (None, None)
        step: TracebackType | None = error.__traceback__
        while step is not None:
            file, line = step.tb_frame.f_code.co_filename, step.tb_lineno
            template = step.tb_frame.f_globals.get("__jinja_template__")
            if isinstance(template, Template):  # compiled: its lines are those of Python, unless Jinja has mapped them already
                file, line = str(template.filename), template.get_corresponding_lineno(line)
            if self._is_somebodys(Path(file)):
                found = Path(file), line
            step = step.tb_next
        if isinstance(error, TemplateSyntaxError) and error.filename is not None and self._is_somebodys(Path(error.filename)):
            found = Path(error.filename), error.lineno
        return found

    def path_of(self, name: str | None) -> Path | None:
        """Return the file of a template, if it is not ours."""
        index, _, own = (name or "").partition("/")
        layer = self.templates.layers[int(index)] if index.isdigit() else None
        return None if layer is None or layer.owner == "icestream" else layer.folder / own

    def _is_somebodys(self, path: Path) -> bool:
        return any(path.is_relative_to(layer.folder) for layer in self.templates.layers if layer.owner != "icestream")


class _GuardedBlock:
    """A block that gives way to the one that it overrides where it fails; ours has none to give way to."""

    def __init__(self, sandbox: TemplateSandbox, name: str, block: _Block) -> None:
        self._sandbox, self._name, self._block = sandbox, name, block

    def __eq__(self, other: object) -> bool:
        """Be the block itself: Jinja looks for the one that calls ``super()``."""
        return other is self or other is self._block

    def __hash__(self) -> int:
        return hash(self._block)

    def __call__(self, context: Context) -> Iterator[str]:
        """Give what the block writes."""
        stack = context.blocks.get(self._name, [])
        below = next((other for index, other in enumerate(stack) if self in stack[:index]), None)
        try:
            yield from list(self._block(context))
        except MISTAKES as error:
            if below is None:
                raise
            instead = f"the block {self._name!r} below it is used"
            self._sandbox.blame(error, self._sandbox.path_of(context.name), instead, whole=False)
            yield from below(context)


def _size_of(value: Any) -> int:
    """Return how long a value is; how often it repeats another, if it is a number."""
    return int(value) if isinstance(value, int) else len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _describe(error: Exception) -> str:
    if isinstance(error, TemplateNotFound):
        return f"there is no template {error.name!r}"
    said = error.message if isinstance(error, TemplateError) and error.message else str(error)
    plain = re.sub(r"'[\w.]+\.(\w+) object'", r"\1", said or type(error).__name__)  # a class without the module it is in
    return " ".join(plain.split())[:400]
