"""The Python API over the daemon's REST API: Client here, the asynchronous AsyncClient in client.aio.

    from sampan.client.api import Client

    with Client() as client:
        made = client.containers.create(CreateBody(image="busybox", cmd=["true"]))
        client.containers.start(made.id)

It knows the daemon only by HTTP; it never starts one.
"""
