"""REST over the service: routes, the envelope, the HTTP codes. Decides nothing about data.

Charter: a module here limits the size of a request, decodes it, checks its form, calls the service, and puts
the answer into the envelope. One dispatcher (`dispatch`) stands before two kinds of routes:

- health, points and search (`health_routes`, `point_routes`): raw ASGI; msgspec decodes bodies straight into
  arrays.
- all other routes (`collection_routes`, `server_routes`): FastAPI and Pydantic, loaded late.

A module here may import the service and the model, never the index or the storage.
"""
