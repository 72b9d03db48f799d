"""Whether the links of an emulated WAN are what they should be."""
