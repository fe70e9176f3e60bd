"""Verified transfer: files are copied from one folder to another while they appear, verified, and removed there only when asked.

It runs beside a session or without one, knows no store, and is started by people (decision 0042).
"""
