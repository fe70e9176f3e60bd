"""Counts in sentences: ``1 file is``, ``3 files are``."""


def counted(count: int, thing: str, verb: str = "") -> str:
    """Return a count with what is counted, in the plural where it is not one; ``verb`` has both of its forms, as ``is/are``."""
    one, _, more = verb.partition("/")
    words = (str(count), thing, one) if count == 1 else (str(count), f"{thing}s", more)
    return " ".join(filter(None, words))
