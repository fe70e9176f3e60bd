"""A classification that version 1 began goes on: the exposures that it held become a segment like any other."""

import numpy as np

from icestream.errors import ItemError
from icestream.io.image import read_stack
from icestream.steps.classify2d.engine import Call
from icestream.steps.classify2d.segments import OPTICS, TABLE, Prepared, join, shrink_2d, write_segment
from icestream.steps.classify2d.state import Classify2DState, HeldExposure, load_model


def held_particles(state: Classify2DState, call: Call) -> Classify2DState:
    """Return the state with what version 1 held in a segment, assigned to the classes that it had; nothing else changes.

    Version 1 wrote down neither the micrograph of its particles nor their assignments: they are looked at again, and steps that
    join particles by micrograph find only those that came later.
    """
    if not state.held or state.model is None:
        return state
    segment = write_segment(join([_read(one, call) for one in state.held]), suffix="held", ctx=call.ctx)
    averages = load_model(state.model, call.ctx).averages
    _, (table,) = call.pass_over([segment], averages)
    known = call.keep(segment, table, "held")
    return state.model_copy(update={"held": [], "segments": [known, *state.segments]})


def _read(exposure: HeldExposure, call: Call) -> Prepared:
    images = read_stack(call.ctx.path(exposure.stack))  # (n, box, box)
    if len(images) != exposure.count:
        raise ItemError(f"{exposure.stack}: holds {len(images)} images, its record says {exposure.count}")
    optics = np.load(call.ctx.path(exposure.table), allow_pickle=False)
    table = np.zeros(exposure.count, dtype=TABLE)
    table["micrograph"], table["exposure"] = exposure.id.encode(), exposure.id.encode()
    table["pid"], table["slice"] = optics["pid"], np.arange(exposure.count)
    table["half"] = (np.arange(exposure.count) + exposure.ordinal) % 2
    table["sign"], table["flipped"] = 1 if exposure.inverted else -1, exposure.phase_flipped
    for name in OPTICS:
        table[name] = optics[name]
    for name in ("voltage_kv", "cs_mm", "amplitude_contrast"):
        table[name] = getattr(exposure, name)
    return Prepared(shrink_2d(images, size=call.scale.setting.grid.box_px).astype(np.float16), table)
