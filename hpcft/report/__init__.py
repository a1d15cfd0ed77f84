"""What a run came to, as one page for somebody who was not there: curves, jobs, where the time went, measures, papers.

Login node, no torch. `account` says where the time went, `sections` and `papers` are the parts of the page, `page` puts
them together.
"""
