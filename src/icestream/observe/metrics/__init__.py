"""What a monitoring system follows of sessions: numbers with names and labels by the conventions of Prometheus.

Names begin with ``icestream_`` and end with their unit: ``seconds``, ``bytes``, ``ratio`` (0 to 1, never percent), ``hertz``,
``degrees``, and ``angstroms`` for every length of the specimen. What only grows ends with ``_total``. Labels are a session, a
step and words of short lists; nothing is labelled with an exposure or a reason, so their number does not grow with the session.
"""
