"""Models, shields and memory banks: what is served, by which provider, and what users registered."""
