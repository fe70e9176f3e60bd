"""Which files of an accumulator go, and which stay because a version that is kept names them too."""

import json

from sqlalchemy import Connection, create_engine, insert

from icestream.flow.runner.retention import files_to_drop
from icestream.flow.storage import schema

FOLDER = "steps/classes/1"


def write_versions(connection: Connection, files: dict[int, list[str]], *, bound: int) -> None:
    """Write versions that name files below the folder; one is bound by an exposure."""
    nothing = {"unit": "u", "record_type": "Toy", "record_version": 1, "weight": 1, "inputs": "{}", "params": "{}"}
    cost = {"acquisition": "{}", "wall_s": 0.0, "cpu_s": 0.0, "host": "h", "software": "x", "created_at": 0.0}
    columns = schema.result.c.keys()
    for version, names in files.items():
        record = json.dumps({"tables": [f"session:{FOLDER}/{name}" for name in names]})
        row = {**nothing, **cost, "key": f"k{version}", "revision": 1, "record": record, "seq": version, "at": 0.0}
        connection.execute(insert(schema.result).values({name: value for name, value in row.items() if name in columns}))
        mark = {"revision": 1, "version": version, "key": f"k{version}", "pruned": False, "at": 0.0, "seq": version}
        connection.execute(insert(schema.snapshot).values(mark))
    connection.execute(insert(schema.binding).values(revision=2, unit="x", port="classes", version=bound, key=f"k{bound}"))


def test_a_file_that_an_older_version_shares_stays() -> None:
    engine = create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        versions = {1: ["shared.npy", "first.png"], 2: ["shared.npy", "second.png"], 12: ["newest.png"]}
        write_versions(connection, versions, bound=1)
        dropped = files_to_drop(connection, revision=1, folder=FOLDER, position=12)
    assert dropped == [f"session:{FOLDER}/second.png"]
