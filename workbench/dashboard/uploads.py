"""Stores from the reader's own machine: checked, kept for the session under names of ours."""

import tempfile
from pathlib import Path

import streamlit as st

from workbench.store import Store, StoreError
from workbench.telling.text import markdown
from workbench.vocabulary.errors import RequestError

MAX_BYTES = 64 * 2**20
"""As the server's own limit in .streamlit/config.toml, which another configuration may raise."""
MOST = 8
"""Uploads that a session keeps."""
_FOLDER, _FOUND, _SEEN = "folder of uploads", "uploads", "uploads seen"


def uploaded() -> dict[str, Path]:
    """The session's uploads by the name that a link has for them."""
    return dict(st.session_state.get(_FOUND, {}))


def keep(content: bytes, folder: Path, number: int) -> Path:
    """Write an upload as ``upload-NUMBER.db`` and check all of it.

    Raises RequestError, one line, for what is no sound store; nothing of it is left then. A
    store's rows are data: nothing in them is run, and the file is only ever opened for reading.
    """
    if len(content) > MAX_BYTES:
        raise RequestError(f"upload: {len(content):,} bytes; at most {MAX_BYTES:,} are taken")
    path = folder / f"upload-{number}.db"
    sound = False
    try:
        path.write_bytes(content)
        path.chmod(0o400)
        with Store.open(path) as store:
            faults = store.check(rows=False)
            store.runs()
            store.frame()
        if faults:
            raise RequestError(f"upload: damaged: {faults[0]}")
        sound = True
    except (RequestError, StoreError) as error:
        reason = str(error).replace(str(path), "upload").partition("; save the readable rows")[0]
        raise RequestError(reason) from None
    except OSError as error:
        raise RequestError(f"upload: cannot be kept: {error.strerror or error}") from None
    finally:
        if not sound:
            path.unlink(missing_ok=True)
    return path


def upload() -> None:
    """The control that takes a store, and opens it."""
    with st.expander("Look at a store from your own machine", icon=":material/upload:"):
        files = st.file_uploader(
            "A store",
            max_upload_size=MAX_BYTES // 2**20,
            key="upload",
            label_visibility="collapsed",
        )
        st.caption("It is checked, opened for reading only, and gone when you close this tab.")
        if files is None or files.file_id in st.session_state.get(_SEEN, ()):
            return
        uploaded = st.session_state.setdefault(_FOUND, {})
        st.session_state.setdefault(_SEEN, set()).add(files.file_id)
        try:
            if len(uploaded) >= MOST:
                raise RequestError(f"upload: {MOST} are kept in a session; reload for a new one")
            folder = st.session_state.setdefault(_FOLDER, tempfile.TemporaryDirectory())
            path = keep(files.getvalue(), Path(folder.name), len(uploaded) + 1)
        except RequestError as error:
            st.error(markdown(error))
            return
        uploaded[path.name] = path
        st.query_params["store"] = path.name
        st.rerun()
