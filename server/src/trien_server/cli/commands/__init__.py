"""The commands of `trien-server`, a module for each purpose. What they do is in the modules beside."""
