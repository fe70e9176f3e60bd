"""Dashboards for Grafana, alert rules for Prometheus, and what starts both: files that are written out for a facility."""

from icestream.observe.grafana.writing_out import write_out

__all__ = ["write_out"]
