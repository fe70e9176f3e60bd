"""Sending messages: by mail, to a web address, to a program, to Alertmanager; and trying again when that fails.

A sender returns when the other side has taken the message, and raises `DeliveryError` otherwise.
"""
