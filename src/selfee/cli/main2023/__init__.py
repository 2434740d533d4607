"""``selfee main``: the command line of llama.cpp's ``main`` of June 2023 (2d43387), run by this engine.

``flags`` is the table of all its flags, ``command`` parses them, ``opening`` makes the model ready, ``loop`` alternates
between the model and a person, ``console`` is what that person sees and types, ``prompts`` makes tokens of texts.
"""
