"""Movies as they come from the camera: importing them, their gain and their dose."""
