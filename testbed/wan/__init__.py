"""A WAN as data: centers, links, generators, presets, and how they change."""

PICTURES = ("png", "svg", "pdf")  # formats of files
