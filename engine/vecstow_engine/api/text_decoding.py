"""The decoding of a search's text, and of the fusion of a search with a text and a vector."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import asdict

from vecstow_engine.api.answers import Media
from vecstow_engine.api.decoding import NULLS
from vecstow_engine.api.parsing import Decoder, check_entries, check_members, decode
from vecstow_engine.api.search_bodies import SentFusion
from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.text_searches import TEXT_CHARACTERS_MAX, Fusion

TEXT_BYTES_MAX: Final = 12 * TEXT_CHARACTERS_MAX + 2
"""JSON may escape a character beyond 16 bits as two units of six bytes each."""

_json_text: Decoder[str] = msgspec.json.Decoder(str)
_json_fusion: Decoder[SentFusion] = msgspec.json.Decoder(SentFusion)
_packed_text: Decoder[str] = msgspec.msgpack.Decoder(str)
_packed_fusion: Decoder[SentFusion] = msgspec.msgpack.Decoder(SentFusion)


def read_text(raw: Raw, media: Media) -> str | None:
    """Return the text in a member, None for an absent one; raise InvalidInput or WrongShape."""
    if bytes(memoryview(raw)[:5]) in NULLS:
        return None
    size = len(memoryview(raw))
    if size > TEXT_BYTES_MAX:
        raise InvalidInput(
            f"text has {size} bytes; texts have at most {TEXT_CHARACTERS_MAX} characters",
            details=refused("text", size, TEXT_CHARACTERS_MAX),
        )
    return decode(_json_text if media is Media.JSON else _packed_text, raw, "text")


def read_fusion(raw: Raw, media: Media) -> Fusion | None:
    """Return the fusion in a member, None for an absent one; raise InvalidInput or WrongShape."""
    if bytes(memoryview(raw)[:5]) in NULLS:
        return None
    if media is Media.JSON:
        sent = decode(_json_fusion, raw, "fusion")
        check_members(bytes(raw), sent.given, (), "fusion")
    else:
        sent = decode(_packed_fusion, raw, "fusion")
        check_entries(bytes(raw), sent.given, "fusion")
    values = asdict(sent).items()
    return Fusion(**{name: value for name, value in values if value is not UNSET and value is not None})
