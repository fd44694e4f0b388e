"""Content-Type and Accept, https://www.rfc-editor.org/rfc/rfc9110 (8.3.1 and 12.5.1)."""

from collections.abc import Sequence


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, names in lower case: `text/csv; header=absent`."""
    kind, *rest = header.split(";")
    pairs = (part.partition("=") for part in rest)
    return kind.strip().lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """What the client likes best of what is offered; the first where it does not care, None where nothing suits."""
    ranges = [media_type(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return offered[0]
    for kind, parameters in sorted(ranges, key=lambda one: -_weight(one[1])):
        fitting = [one for one in offered if _within(one, kind)] if _weight(parameters) else []
        if fitting:
            return fitting[0]
    return None


def _within(kind: str, wanted: str) -> bool:
    return wanted in ("*/*", "*", kind) or (wanted.endswith("/*") and kind.startswith(wanted.removesuffix("*")))


def _weight(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 1.0
