"""One scoring kernel: how well images agree with references, over rotations and shifts.

2D classes, template picking, initial volumes, 3D classes and refinement all ask the same question, so they share the answer.
`particles` prepares images (`contrast` has their CTF), `bank` prepares references, `search` looks everywhere, `windows` only
where each image is told to look, `cascade` coarsely everywhere and then finely where it matters, `polish` moves a committed pose
off the grid. All work on `polar` samples of the Fourier transform.
"""
