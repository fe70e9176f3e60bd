"""From one version of the store's tables to the next, with Alembic; `icestream.flow.storage.migrating` runs them."""
