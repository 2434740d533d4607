"""selfee for programs and notebooks, in three verbs: ``load`` a model, ``revise`` with it, ``stream`` while it does.

::

    model = selfee.load("smollm2-135m", revisions=1)
    chain = model.revise("Why is the sky blue?")
    print(chain.final)

Everything below can be used without it; here the options have the names they have on the command line.
"""

from selfee.api.model import RevisingModel, load
from selfee.api.options import Options

__all__ = ["Options", "RevisingModel", "load"]
