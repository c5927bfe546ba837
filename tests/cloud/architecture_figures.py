"""All figures: importing the parts fills the list."""

import architecture_data  # noqa: F401
import architecture_delivery  # noqa: F401
import architecture_network  # noqa: F401
import architecture_service  # noqa: F401
import architecture_watch  # noqa: F401
from architecture import FIGURES

__all__ = ["FIGURES"]
