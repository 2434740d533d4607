"""How a model lies on disk: containers, block types, names. Never knows how a model computes."""
