"""File formats in and out: movies, images, gains, STAR files, sidecars and pictures.

One row convention holds everywhere: row 0 of an array is the first row of an MRC file, which viewers draw at the bottom.

* MRC rows are taken as stored.
* TIFF, PNG, JPEG and Digital Micrograph files store the top row first, so their rows are flipped on reading and pictures are
  flipped on writing. This is what RELION, IMOD and MotionCor2 do; RELION documents it for TIFF. Orientation tags are ignored.
* EER rows are taken as stored, and so are the rows of a ``.gain`` file (a TIFF that belongs to EER movies): RELION renders
  event rows unflipped and takes back the flip of its TIFF reader for ``.gain``. Not verified on camera data.

Arrays that come from a file are read-only where they may be shared (`icestream.io.memory`), and in the byte order of the machine.
Whatever is wrong with a file is raised as `FileFormatError` or `TruncatedFile` (a missing file as `SourceGone`), before memory
is taken for what a header merely claims. Nothing here knows steps, stores or science.
"""
