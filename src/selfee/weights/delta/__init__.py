"""What leads from a base model to one trained from it: made, packed, applied, and the published kinds."""
