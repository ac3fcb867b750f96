"""SQLite, the single truth: records as rows, rows as frames; nothing here imports torch."""

from workbench.store.database import RecordId, RunInfo, Store, StoreError, version_token

__all__ = ["RecordId", "RunInfo", "Store", "StoreError", "version_token"]
