"""The same samples as lines of InfluxDB: the name is the measurement, labels are tags, and the field is called ``value``."""

import math

from icestream.observe.metrics.families import Samples

_IN_NAMES = str.maketrans({",": "\\,", " ": "\\ ", "\n": "\\ ", "\r": ""})
_IN_TAGS = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", "\n": "\\ ", "\r": ""})


def write_lines(samples: Samples, *, at_s: float) -> str:
    """Return a line for each sample, with the time in nanoseconds; what is no finite number is left out.

    InfluxDB 1.x, 2.x and VictoriaMetrics read them. A tag without a value is left out, as the protocol asks, and so is a
    backslash at the end of one, which it cannot express.
    """
    at_ns = round(at_s * 1e9)
    lines = []
    for name, labels, value in samples:
        if math.isfinite(value):
            tags = [f",{_in_tag(key)}={text}" for key, given in sorted(labels.items()) if (text := _in_tag(given))]
            lines.append(f"{name.translate(_IN_NAMES)}{''.join(tags)} value={value!r} {at_ns}\n")
    return "".join(lines)


def _in_tag(text: str) -> str:
    return text.rstrip("\\").translate(_IN_TAGS)
