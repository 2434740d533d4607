"""How a model lies on disk: containers, block types, names. Never knows how a model computes.

``open_checkpoint`` opens a file, ``check_architecture`` says whether it can be run, ``summarize`` describes it,
``dequantize`` gives the values of its blocks. The modules are the public names' homes; nothing is imported here.
"""
