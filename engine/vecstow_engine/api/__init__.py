"""REST over the service: routes, the envelope, the HTTP codes. Decides nothing about data."""
