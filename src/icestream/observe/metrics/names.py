"""Every metric that is the same for all sessions; what records measure adds to them (`measured`)."""

from icestream.observe.metrics.families import Family

_S = ("session",)
_STEP = ("session", "step")
_QUANTILE = ("session", "step", "quantile")

BUILD = Family("icestream_build_info", "info", "Version of icestream that serves these metrics", ("version",))
SESSIONS = Family("icestream_sessions", "gauge", "Sessions by state; quiet ones have not changed for a day", ("state",))

SESSION = Family(
    "icestream_session_info",
    "info",
    "Title of a session, and version of icestream that processes it",
    ("session", "title", "version"),
)
STATE = Family("icestream_session_state", "gauge", "1 for the state in which the session is", ("session", "state"))
PAUSED = Family("icestream_session_paused", "gauge", "1 while the session is paused", _S)
STARTED = Family("icestream_session_started_timestamp_seconds", "gauge", "When the first exposure arrived, since 1970", _S)
CHANGED = Family("icestream_session_changed_timestamp_seconds", "gauge", "When anything was decided last, since 1970", _S)
HEARTBEAT = Family("icestream_runner_heartbeat_timestamp_seconds", "gauge", "Last sign of life of the runner, since 1970", _S)
NOTICES = Family("icestream_notices", "gauge", "Notices among the newest 50 that still hold", ("session", "level"))

EXPOSURES = Family("icestream_exposures_total", "counter", "Exposures that have arrived", _S)
LAST_EXPOSURE = Family("icestream_exposure_last_timestamp_seconds", "gauge", "When the newest exposure arrived, since 1970", _S)
EXPOSURE_RATE = Family("icestream_exposure_rate_hertz", "gauge", "Exposures a second in the hour before the newest", _S)

STEP = Family(
    "icestream_step_info",
    "info",
    "What a step runs, with its version and revision",
    ("session", "step", "use", "label", "type_version", "software", "revision"),
)
UNITS = Family(
    "icestream_step_units",
    "gauge",
    "Exposures (or batches, or versions) of a step by state; waiting and running are its queue",
    ("session", "step", "state"),
)
OUTCOMES = Family("icestream_step_outcomes_total", "counter", "Outcomes that a step has decided", ("session", "step", "outcome"))
FAILURES = Family("icestream_step_failures_total", "counter", "Attempts that ended badly, by kind", ("session", "step", "kind"))
RATE = Family("icestream_step_rate_hertz", "gauge", "Outcomes a second in the last ten minutes", _STEP)
OPEN = Family("icestream_step_stream_open", "gauge", "1 while the output of a step is open, 0 when it has closed", _STEP)
PARTICLES = Family("icestream_step_particles", "gauge", "Particles of all exposures that a step has passed", _STEP)
LATENCY = Family(
    "icestream_step_latency_seconds", "summary", "From the arrival of an exposure to its outcome, newest 50", _QUANTILE
)
WALL = Family("icestream_step_wall_seconds", "summary", "Duration of one computation, newest 50", _QUANTILE)
CPU = Family("icestream_step_cpu_seconds", "summary", "Processor time of one computation, newest 50", _QUANTILE)

VERSION = Family("icestream_whole_version", "gauge", "Newest version of a whole, such as 2D classes", _STEP)
PUBLISHED = Family("icestream_whole_published_timestamp_seconds", "gauge", "When the newest version was published", _STEP)
PARTS = Family("icestream_gallery_parts", "gauge", "Parts of the newest version, such as classes", _STEP)
MEMBERS = Family("icestream_gallery_members", "gauge", "What the parts hold together, such as particles", _STEP)
LARGEST = Family("icestream_gallery_largest_share_ratio", "gauge", "Share of the largest part", _STEP)
PICTURE = Family(
    "icestream_picture_info", "info", "Where the newest picture of a step is served", ("session", "step", "title", "path")
)

DISK_FREE = Family("icestream_disk_free_bytes", "gauge", "Free space where a root of the session is", ("session", "root"))
DISK_SIZE = Family("icestream_disk_size_bytes", "gauge", "Size of the disk where a root of the session is", ("session", "root"))

HOST_CORES = Family("icestream_host_cores", "gauge", "Processor cores", ("host",))
HOST_CPU = Family("icestream_host_cpu_seconds_total", "counter", "Processor time since the machine started", ("host", "mode"))
HOST_LOAD = Family("icestream_host_load_average", "gauge", "Processes that want a core, over one minute", ("host",))
HOST_MEMORY = Family("icestream_host_memory_bytes", "gauge", "Memory of the machine", ("host", "state"))
HOST_SWAP = Family("icestream_host_swap_bytes", "gauge", "Swap space of the machine", ("host", "state"))
HOST_DISK = Family("icestream_host_disk_bytes_total", "counter", "Bytes read from and written to disks", ("host", "direction"))
HOST_NETWORK = Family("icestream_host_network_bytes_total", "counter", "Bytes received and sent", ("host", "direction"))
GPU_USE = Family("icestream_host_gpu_use_ratio", "gauge", "Share of the time in which a GPU computed", ("host", "gpu"))
GPU_MEMORY = Family("icestream_host_gpu_memory_bytes", "gauge", "Memory of a GPU", ("host", "gpu", "state"))
GPU_TEMPERATURE = Family("icestream_host_gpu_temperature_celsius", "gauge", "Temperature of a GPU", ("host", "gpu"))

ALL = tuple(one for one in list(globals().values()) if isinstance(one, Family))
