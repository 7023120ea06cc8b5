"""A chat relay in the manner of the tutorials, for the tests of the client.

It makes the same socket calls as they do, and so the same mistakes. Who connects is read from at
once with a socket that blocks, so a client that sends no name blocks all others. A header and a text are
one recv() call each, taken to return all that it asked for. A message goes to the others with one
send() call each, taken to send all of it.

usage: chat10_server.py PORT
Listens on 127.0.0.1; port 0 is any free one. Prints "listening on PORT", and after that nothing.
"""

import select
import socket
import sys

HEADER = 10


def receive(connection):
    """A frame as it came, header and all; None if the connection is over or makes no sense."""
    try:
        header = connection.recv(HEADER)
        if not header:
            return None
        return header + connection.recv(int(header.decode("utf-8").strip()))
    except (OSError, ValueError):
        return None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[2].split("\n")[0])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    names = {}
    while True:
        readable, _, _ = select.select([listener, *names], [], [])
        for ready in readable:
            if ready is listener:
                client, _ = listener.accept()
                name = receive(client)
                if name is not None:
                    names[client] = name
                continue
            message = receive(ready)
            if message is None:
                del names[ready]
                continue
            for member in names:
                if member is not ready:
                    member.send(names[ready] + message)


try:
    main()
except KeyboardInterrupt:
    pass
