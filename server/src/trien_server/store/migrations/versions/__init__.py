"""One file a revision. A released revision is never edited: the next one changes what it made."""
