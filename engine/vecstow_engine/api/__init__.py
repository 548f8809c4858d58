"""REST over the service: routes, the envelope, the HTTP codes. Decides nothing about data.

Charter: what comes over the wire is bounded, decoded and checked for its form here, handed to the service,
and the answer put into the envelope. One dispatcher (`dispatch`) in front of two kinds of routes:

- health, points and search (`health_routes`, `point_routes`): raw ASGI, decoded by msgspec straight into
  arrays;
- everything else (`collection_routes`, `server_routes`): FastAPI and Pydantic, loaded late.

A module here may import the service and the model, never storage or index.
"""
