"""Monitors and alarms."""
