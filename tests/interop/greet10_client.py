"""A client in the manner of the tutorials that greet with a ten-byte header, for the tests of the relay.

Like theirs it reads 16 bytes at a time, takes the length from the first ten bytes of a message, and shows
the message when it has all of it.

usage: greet10_client.py HOST PORT MESSAGES
Ends after so many messages.
"""

import socket
import sys

HEADER = 10


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[2].split("\n")[0])
    host, port, messages = sys.argv[1:]
    connection = socket.create_connection((host, int(port)))
    for _ in range(int(messages)):
        received = b""
        length = None
        while length is None or len(received) < HEADER + length:
            more = connection.recv(16)
            if not more:
                sys.exit("closed by the relay")
            received += more
            if length is None and len(received) >= HEADER:
                length = int(received[:HEADER])
        print(received[HEADER:].decode("utf-8"), flush=True)


main()
