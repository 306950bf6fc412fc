"""`trien-server ceremony`: an installation made from one reviewed file, before witnesses."""
