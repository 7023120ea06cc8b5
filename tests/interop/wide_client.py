"""A chat client in the manner of the tutorials with 64-byte headers, for the tests of the relay.

It makes the same socket calls as they do: for each line of input it sends a header of 64 bytes and the
message, and shows what one recv() returns, which it takes for the answer. At the end of the input it
sends its farewell, shows what comes after that, and ends when the relay closes the connection.

usage: wide_client.py HOST PORT FAREWELL
An empty line sends nothing and shows what one recv() returns.
"""

import socket
import sys

HEADER = 64
FORMAT = "utf-8"


def send(connection, text):
    message = text.encode(FORMAT)
    length = str(len(message)).encode(FORMAT)
    connection.send(length + b" " * (HEADER - len(length)))
    connection.send(message)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[2].split("\n")[0])
    host, port, farewell = sys.argv[1:]
    try:
        connection = socket.create_connection((host, int(port)))
    except OSError as error:
        sys.exit(f"cannot connect to {host}:{port}: {error}; is the relay running?")
    print("connected", flush=True)
    for line in sys.stdin:
        text = line.rstrip("\n")
        if text:
            send(connection, text)
        print(connection.recv(2048).decode(FORMAT), flush=True)
    send(connection, farewell)
    while rest := connection.recv(2048):
        print(rest.decode(FORMAT), flush=True)
    print("closed by the relay", flush=True)


try:
    main()
except KeyboardInterrupt:
    pass
