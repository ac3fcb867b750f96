"""Notes and tags that people write on runs and on records. They change no result."""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic_core import from_json, to_json

from workbench.vocabulary.errors import RequestError

MAX_TEXT, MAX_TAGS, MAX_TAG = 2_000, 10, 40
"""Characters of a note, tags of a note, characters of a tag."""

OUT_OF_MINUTES = "out of minutes"
"""The tag of a run whose sweep had no room for some cells, and what their line begins with."""

NoteOf = tuple[str, str, str, str]
"""(run, cell key, source, device); the last three are empty for a note on the whole run."""


class Note(NamedTuple):
    """What somebody wrote; plain text, never markup."""

    text: str = ""
    tags: tuple[str, ...] = ()


def checked(text: str, tags: Iterable[str]) -> Note:
    """A note without blanks around its words and without repeated tags.

    Raises RequestError, one line, where it is too long or holds control characters.
    """
    note = Note(text.strip(), tuple(dict.fromkeys(t.strip() for t in tags if t.strip())))
    if len(note.text) > MAX_TEXT:
        raise RequestError(f"note: {len(note.text):,} characters; at most {MAX_TEXT:,}")
    if len(note.tags) > MAX_TAGS:
        raise RequestError(f"tags: {len(note.tags)}; at most {MAX_TAGS}")
    for tag in note.tags:
        if len(tag) > MAX_TAG or "," in tag:
            raise RequestError(f"tag {tag!r:.60}: at most {MAX_TAG} characters, none a comma")
    for word in (note.text.replace("\n", " "), *note.tags):
        if not word.isprintable():
            raise RequestError(f"note {word!r:.60}: only characters that can be printed")
    return note


def put(connection: sqlite3.Connection, run_id: int, of: NoteOf, note: Note) -> None:
    """Write ``note`` in a transaction, in the place of an older one; an empty one ends it."""
    place = (run_id, *of[1:])
    where = "run_id = ? AND key = ? AND source = ? AND device = ?"
    connection.execute(f"DELETE FROM notes WHERE {where}", place)
    if note != Note():
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = (*place, note.text, to_json(note.tags).decode(), now)
        connection.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", row)


QUERY = """
    SELECT runs.name, key, source, device, text, tags
    FROM notes JOIN runs ON runs.id = notes.run_id
"""


def decode(rows: Iterable[tuple[str, ...]]) -> dict[NoteOf, Note]:
    """The rows of QUERY as notes; raises ValueError for those that ``put`` cannot have written."""
    notes = {}
    for run, key, source, device, text, tags in rows:
        listed = from_json(tags)
        if not isinstance(listed, list) or not all(isinstance(v, str) for v in (text, *listed)):
            raise ValueError(f"note on {run} {key}: not text and a list of tags")
        try:
            notes[run, key, source, device] = checked(text, listed)
        except RequestError as error:
            raise ValueError(f"note on {run} {key}: {error}") from None
    return notes
