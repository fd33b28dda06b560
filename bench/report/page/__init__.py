"""A recorded run as one HTML page that needs no network; its charts want the extra `report`."""

from importlib.util import find_spec


def page_is_possible() -> bool:
    """Return whether the extra `report` is installed."""
    return all(map(find_spec, ("altair", "vl_convert", "jinja2")))
