-- The tables of version 1, as SQLite stores of that version have them.

CREATE TABLE command (
    id INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    arguments TEXT NOT NULL,
    author VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    answer TEXT,
    at FLOAT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE exposure (
    unit VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    identity TEXT NOT NULL,
    source VARCHAR NOT NULL,
    acquisition TEXT NOT NULL,
    arrived_at FLOAT NOT NULL,
    settled_by VARCHAR,
    seq INTEGER NOT NULL,
    PRIMARY KEY (unit),
    UNIQUE (ordinal)
);

CREATE INDEX unsettled ON exposure (settled_by);

CREATE TABLE lease (
    revision INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    attempt VARCHAR NOT NULL,
    fence INTEGER NOT NULL,
    worker VARCHAR NOT NULL,
    started_at FLOAT NOT NULL,
    PRIMARY KEY (revision, unit),
    UNIQUE (attempt)
);

CREATE TABLE notice (
    seq INTEGER NOT NULL,
    level VARCHAR NOT NULL,
    step VARCHAR,
    unit VARCHAR,
    message TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (seq)
);

CREATE TABLE revision (
    id INTEGER NOT NULL,
    step VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    use VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    type_version INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    params TEXT NOT NULL,
    links TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    definition VARCHAR NOT NULL,
    software VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (step, number)
);

CREATE UNIQUE INDEX one_active_revision ON revision (step) WHERE state = 'active';

CREATE TABLE runner (
    id INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    host VARCHAR,
    pid INTEGER,
    pid_started FLOAT,
    heartbeat_at FLOAT,
    last_seq INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    note TEXT,
    PRIMARY KEY (id)
);

CREATE TABLE source_file (
    step VARCHAR NOT NULL,
    ref TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    PRIMARY KEY (step, ref, size_bytes, modified_ns)
);

CREATE TABLE accumulator_log (
    revision INTEGER NOT NULL,
    position INTEGER NOT NULL,
    members TEXT NOT NULL,
    weight INTEGER NOT NULL,
    closing BOOLEAN NOT NULL,
    state_key VARCHAR NOT NULL,
    state TEXT,
    state_version INTEGER,
    absorbed BOOLEAN NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (revision, position),
    FOREIGN KEY(revision) REFERENCES revision (id)
);

CREATE TABLE batch (
    revision INTEGER NOT NULL,
    number INTEGER NOT NULL,
    members TEXT NOT NULL,
    weight INTEGER NOT NULL,
    remainder BOOLEAN NOT NULL,
    at FLOAT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (revision, number),
    FOREIGN KEY(revision) REFERENCES revision (id),
    UNIQUE (seq)
);

CREATE TABLE binding (
    revision INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    port VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    PRIMARY KEY (revision, unit, port),
    FOREIGN KEY(revision) REFERENCES revision (id)
);

CREATE INDEX binding_by_key ON binding ("key");

CREATE TABLE failure (
    seq INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    attempt VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    error_type VARCHAR NOT NULL,
    message TEXT NOT NULL,
    traceback TEXT NOT NULL,
    cleared BOOLEAN NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (seq),
    FOREIGN KEY(revision) REFERENCES revision (id)
);

CREATE INDEX failure_by_unit ON failure (revision, unit);

CREATE TABLE gate_opening (
    revision INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at FLOAT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (revision),
    FOREIGN KEY(revision) REFERENCES revision (id),
    UNIQUE (seq)
);

CREATE TABLE outcome (
    revision INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    keys TEXT NOT NULL,
    weight INTEGER NOT NULL,
    reason TEXT,
    root VARCHAR,
    missing TEXT,
    at FLOAT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (revision, unit),
    FOREIGN KEY(revision) REFERENCES revision (id),
    UNIQUE (seq)
);

CREATE INDEX outcome_by_status ON outcome (revision, status, weight);

CREATE INDEX outcome_by_unit ON outcome (unit);

CREATE TABLE result (
    "key" VARCHAR NOT NULL,
    revision INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    record_type VARCHAR NOT NULL,
    record_version INTEGER NOT NULL,
    record TEXT NOT NULL,
    block BLOB,
    weight INTEGER NOT NULL,
    inputs TEXT NOT NULL,
    params TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    wall_s FLOAT NOT NULL,
    cpu_s FLOAT NOT NULL,
    host VARCHAR NOT NULL,
    software VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY ("key"),
    FOREIGN KEY(revision) REFERENCES revision (id)
);

CREATE TABLE snapshot (
    revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    pruned BOOLEAN NOT NULL,
    at FLOAT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (revision, version),
    FOREIGN KEY(revision) REFERENCES revision (id),
    UNIQUE (seq)
);

CREATE TABLE stream (
    seq INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    reason TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (seq),
    FOREIGN KEY(revision) REFERENCES revision (id)
);
