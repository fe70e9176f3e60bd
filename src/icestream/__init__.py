"""Process single-particle cryo-EM data while the microscope is still collecting."""

__version__ = "0.1.0"
