"""The gain of the camera: correcting for it, learning it, finding how it lies on the frames."""
