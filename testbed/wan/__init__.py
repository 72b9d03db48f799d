"""A WAN as data: centers, links, generators, presets, and how they change."""
