"""The endpoint of `graftlab serve`.

models     what is served: the base and adapters on it, by name
requests   JSON of a request -> a checked ChatRequest
jobs       a request as turns of the decode loop, and what is told of them
engine     one thread that answers jobs, those for one adapter together
replies    what is told -> JSON
app        routes, keys, limits; the only file that knows Starlette
server     the socket, uvicorn, and how it ends
"""
