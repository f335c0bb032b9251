"""The installed plug-ins, which the key IMPORTS can name."""

from importlib.metadata import entry_points

ENTRY_POINTS = "ember_reid.plugins"


def installed_plugins() -> dict[str, str]:
    """Return {name: module} of the entry points; none of them is imported."""
    return {point.name: point.module for point in entry_points(group=ENTRY_POINTS)}
