"""Tools for those who work on geojax itself."""
