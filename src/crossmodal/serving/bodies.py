"""Bodies of requests, read no further than a limit and no longer than a while."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field

from crossmodal.files.checked_json import Record
from crossmodal.limits import MOST_SERVED

SECONDS = 60  # that a body may take to arrive


class WordsAsked(Record):
    """Images whose regions are compared with the words of a sentence."""

    q: str
    items: Annotated[list[int], Field(min_length=1, max_length=MOST_SERVED)]
    matcher: int = 0


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Args:
        most: bytes.

    Raises:
        HTTPException: 413, it is larger; 408, it does not arrive; 400, it is empty.
    """
    too_large = HTTPException(413, f"the body has more than {most / 1e6:g} MB")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > most:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {SECONDS} seconds") from None
    if not content:
        raise HTTPException(400, "the body is empty")
    return bytes(content)


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The body of a request in OpenAPI's terms."""
    return {"content": {"application/json": {"schema": kind.model_json_schema()}}, "required": True}
