"""The kinds of numbers that params.yaml holds."""

from typing import Annotated

from pydantic import Field

_MOST = 2**31 - 1  # what NumPy, torch and FAISS take for a number of things everywhere
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=_MOST)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
