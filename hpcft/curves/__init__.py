"""Loss curves of a chain of jobs: written by each, stitched into one, shown in TensorBoard, as pictures and as a page.

Any machine, no torch. `frames` and `events` know the file format, `points` reads it, `writer` writes it in
the training loop; `stitch` decides which job's points survive; `view` and `server` show the result in TensorBoard.
`runcurves` is what all pictures know of a run, `axis` and `figure` what they have in common; `picture`, `overlay`,
`page` with its `static/` files, and `sparkline` draw it.
"""
