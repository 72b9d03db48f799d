"""Run directories: the configuration's schema, their files, and one reader of them."""
