"""One module for each version of the tables; its number is the ``schema_version`` that it leads to."""
