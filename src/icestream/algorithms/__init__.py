"""The science: pure functions on arrays.

Conventions, said once and held everywhere below:

* Arrays come positionally, everything else by keyword. No argument is changed in place.
* Images are ``(..., h, w)``, coordinates and shifts ``yx``; row 0 is the first row of an MRC file.
* A shift is the displacement of the specimen: content that was at ``p`` in the reference is at ``p + shift`` in the image.
* Transforms are real (``rfft2``), unshifted, unnormalised: ``(..., h, w // 2 + 1)``; spatial frequency is in cycles per pixel
  unless the name says ``_per_ang``.
* Units are in the names: ``_ang _um _mm _kv _deg _px _s _e_per_ang2``. Degrees at the border, radians only inside a body.
  An angle turns from the x axis towards the y axis (counter-clockwise when row 0 is drawn at the bottom).
* Positive defocus is underfocus. The CTF is ``-sin(chi)``: negative at low frequency for protein that is dark on bright ice.
* Physics has no default; numerics may.
"""
