"""A client in the manner of the tutorials' first one, for the tests of the relay: it shows what it is sent,
eight bytes at a time, until the connection is closed.

usage: hello_client.py HOST PORT
"""

import socket
import sys

if len(sys.argv) != 3:
    sys.exit(__doc__.split("\n\n")[1].strip())
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
shown = ""
while part := connection.recv(8):
    shown += part.decode("utf-8")
print(shown)
