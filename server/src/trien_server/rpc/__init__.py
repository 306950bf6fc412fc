"""The gRPC edge: translates, holds no rule."""
