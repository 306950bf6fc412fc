"""`trien-server doctor`: looks at an installation from its host, also when the server is down or runs beside it.

Each check stands by itself and yields findings (`findings`); what it rests on is opened once (`subject`); `examination`
runs them in order, and `report` tells what was found and what was looked at.
"""
