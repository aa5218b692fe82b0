"""The HTTP adapter of agola_core: Agola 0.2's run service interface, its server and its client.

One route table (`routes.table`) says everything about every endpoint; routing, access control, the OpenAPI
document and the tests are derived from it.
"""
