"""A picker that learns in the session: steerable filters, features that do not depend on the turn, and a logistic model."""
