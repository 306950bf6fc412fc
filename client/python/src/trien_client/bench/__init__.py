"""Measures the service beside its token: `trien bench`.

A server of its own is made for the run (`installation`) and filled with people (`population`). Then the whole path
(`load`) and the token alone (`ceiling`) are driven in turns on the same cores (`measurement`), and `report` says how
much of the token the path lets through. What is driven, how long and how often is a `plan`; the arithmetic is in
`figures`.
"""
