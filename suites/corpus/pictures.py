"""What a corpus may give for a picture, as the PNG a server is sent."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from fixtures.checkpoint.fields import shown

_UNREADABLE = (
    OSError,  # no picture at all, or cut short
    ValueError,
    SyntaxError,  # a broken PNG
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class UnreadableError(ValueError):
    """No picture; the message lacks where it was given, and what to do."""


def png(given: object, folder: Path) -> bytes:
    """PNG of a path in the folder, a file's content, what `datasets` makes of it, or an image.

    A PNG stays as it is, byte by byte; others are encoded anew.
    """
    if isinstance(given, dict) and set(given) == {"bytes", "path"}:
        given = given["bytes"] if given["bytes"] is not None else given["path"]
    name = "its picture"
    if isinstance(given, str):
        name = f"the picture {shown(given)}"
        try:
            given = (folder / given).read_bytes()
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{name} cannot be read from {folder} ({error})") from error
    try:
        if isinstance(given, bytes):
            with Image.open(BytesIO(given)) as image:
                image.load()
                return given if image.format == "PNG" else _encoded(image)
        if isinstance(given, Image.Image):
            return _encoded(given)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableError(f"{name} is not readable as one ({reason})") from error
    raise UnreadableError(f"{name} is {shown(given)}, expected a path or a file's content")


def _encoded(image: Image.Image) -> bytes:
    data = BytesIO()
    image.convert("RGB").save(data, format="PNG")
    return data.getvalue()
