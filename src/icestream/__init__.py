"""Process single-particle cryo-EM data while the microscope is still collecting."""

__version__ = "0.2.0"
