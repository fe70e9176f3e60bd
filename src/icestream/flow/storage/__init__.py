"""A session on disk: its document, its store on SQLite or PostgreSQL, and moving both."""

from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.claiming import RunnerRow, is_alive, read_runner_row
from icestream.flow.storage.database import engine_for, insert_if_new
from icestream.flow.storage.dialects import begins_with, columns_there, has_text, is_there, json_number, json_text, outcome_rowid
from icestream.flow.storage.document_edits import NewBranch, describe_change, digest_steps, with_changed_steps, with_params
from icestream.flow.storage.drains import load_drains
from icestream.flow.storage.exposures import find_exposure, load_arrived, read_exposures
from icestream.flow.storage.file_kinds import FILE_KINDS, FileKind, kind_of_file
from icestream.flow.storage.own_params import (
    Effective,
    Owned,
    OwnParams,
    check_own_params,
    check_owned,
    describe_values,
    find_misfits,
    lay_over,
    load_owned,
    load_replaced,
    may_recompute,
    with_own_contents,
)
from icestream.flow.storage.packing import pack_session
from icestream.flow.storage.pauses import ActivePause, Pauses
from icestream.flow.storage.read_connection import reading
from icestream.flow.storage.relinking import relink_roots
from icestream.flow.storage.removals import (
    Removal,
    RemovedFile,
    find_removed,
    forget_removed,
    pages_of,
    read_removals,
    removed_refs,
    set_state,
    unfinished,
    want_again,
    wanted_keys,
)
from icestream.flow.storage.revisions import (
    Revision,
    activate_revisions,
    begin_anew,
    definition_of,
    fingerprint_of,
    identity_params,
)
from icestream.flow.storage.session import DOCUMENT, STORE, Session, SessionDocument, create_session, dump_document, open_session
from icestream.flow.storage.store import Store, append_command
from icestream.flow.storage.store_trouble import explain
from icestream.flow.storage.trash import TRASH, PlainResults, delete_from_trash, move_back, move_to_trash
from icestream.flow.storage.writing import Writing, needs_durability

__all__ = [
    "DOCUMENT",
    "FILE_KINDS",
    "STORE",
    "TRASH",
    "ActivePause",
    "Effective",
    "FileKind",
    "NewBranch",
    "OwnParams",
    "Owned",
    "Pauses",
    "PlainResults",
    "Removal",
    "RemovedFile",
    "Revision",
    "RunnerRow",
    "Session",
    "SessionDocument",
    "Store",
    "Writing",
    "activate_revisions",
    "append_command",
    "begin_anew",
    "begins_with",
    "check_own_params",
    "check_owned",
    "columns_there",
    "create_session",
    "definition_of",
    "delete_from_trash",
    "describe_change",
    "describe_values",
    "digest_steps",
    "dump_document",
    "engine_for",
    "explain",
    "find_exposure",
    "find_misfits",
    "find_removed",
    "fingerprint_of",
    "forget_removed",
    "has_text",
    "identity_params",
    "insert_if_new",
    "is_alive",
    "is_there",
    "json_number",
    "json_text",
    "kind_of_file",
    "lay_over",
    "load_arrived",
    "load_drains",
    "load_owned",
    "load_replaced",
    "may_recompute",
    "move_back",
    "move_to_trash",
    "needs_durability",
    "open_session",
    "outcome_rowid",
    "pack_session",
    "pages_of",
    "read_exposures",
    "read_removals",
    "read_runner_row",
    "reading",
    "relink_roots",
    "removed_refs",
    "schema",
    "set_state",
    "unfinished",
    "want_again",
    "wanted_keys",
    "with_changed_steps",
    "with_own_contents",
    "with_params",
]
