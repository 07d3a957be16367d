"""Another llamastack server as the provider of any API."""
