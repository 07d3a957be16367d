"""The stores that come with the core. What every store does: `llamastack.provider.store`."""
