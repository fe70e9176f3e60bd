"""What is done with 2D classes: who is who from version to version, which are good, what several classifications agree on."""
