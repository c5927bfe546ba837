"""What must be true of everything that ships to AWS, as rules over the loaded templates.

The linters read one template at a time and know AWS's schemas; these rules know what the templates, the
gateway's configuration, its metrics and the container must agree on. `RULES` has all of them by name.
"""

from contract import (
    access,
    alarms,
    dashboards,
    delivery,
    lint,
    listening,
    mirror,
    names,
    networks,
    protection,
    secrets,
    tasks,
    wiring,
)
from contract.rule import RULES

__all__ = [
    "RULES",
    "access",
    "alarms",
    "dashboards",
    "delivery",
    "lint",
    "listening",
    "mirror",
    "names",
    "networks",
    "protection",
    "secrets",
    "tasks",
    "wiring",
]
