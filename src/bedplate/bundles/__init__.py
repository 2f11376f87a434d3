"""Making bundles on a connected machine, so that hosts need no connection."""

# A real site's; the lab asks for cpu.
DEFAULT_DEVICE = "cuda"
