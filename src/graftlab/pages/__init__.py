"""Pages to read in a browser: one file each, without network, in light and dark."""
