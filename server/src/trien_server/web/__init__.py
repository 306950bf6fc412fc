"""The HTTP edge: the page on which a person enrols an authenticator, and `/livez`. It translates and holds no rule."""
