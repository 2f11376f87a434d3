"""Making bundles on a connected machine, so that hosts need no connection."""
