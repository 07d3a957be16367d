"""Help for authors of providers that speak HTTP or OpenAI's dialect."""
