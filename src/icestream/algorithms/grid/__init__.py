"""The grid in the microscope: where exposures are on it, and which holes promise most.

Positions are ``yx`` in µm of the stage.
"""
