"""Loss curves of a chain of jobs: written by each, stitched into one, shown in TensorBoard and as a picture.

Any machine, no torch. `frames` and `events` know the file format, `points` reads it, `writer` writes it in
the training loop; `stitch` decides which job's points survive; `view`, `picture` and `server` show the
result.
"""
