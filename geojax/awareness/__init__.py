"""What is believed of the WAN: the oracle's view, or one that members measure while they train."""
