"""A chat client in the manner of the tutorials, for the tests of the relay.

It makes the same socket calls as they do: it connects, sends its name with a ten-byte header, sets
the socket to non-blocking, and then, after each line of input and only then, reads what has come
with four recv() calls a message, each taken to return all that it asked for.

usage: chat10_client.py HOST PORT NAME
Each line of standard input is sent as a message, an empty one is not. What was received is printed as
"name > message". Unless a person types, a line "--" ends what one line of input brought.
"""

import errno
import socket
import sys

HEADER = 10


def with_header(text):
    body = text.encode("utf-8")
    return f"{len(body):<{HEADER}}".encode("utf-8") + body


def receive(connection):
    """One name or message; None if there is nothing yet."""
    header = connection.recv(HEADER)
    if not header:
        print("closed by the relay", flush=True)
        sys.exit(0)
    body_length = int(header.decode("utf-8").strip())
    return connection.recv(body_length).decode("utf-8") if body_length else ""


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[2].split("\n")[0])
    host, port, name = sys.argv[1:]
    try:
        connection = socket.create_connection((host, int(port)))
    except OSError as error:
        sys.exit(f"cannot connect to {host}:{port}: {error}; is the relay running?")
    connection.setblocking(False)
    connection.send(with_header(name))
    by_hand = sys.stdin.isatty()
    if by_hand:
        print(f"connected as {name}; type a message, or press Enter to see what has come")
    for line in sys.stdin:
        message = line.rstrip("\n")
        if message:
            connection.send(with_header(message))
        try:
            while True:
                sender = receive(connection)
                print(f"{sender} > {receive(connection)}", flush=True)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                sys.exit(f"the connection broke: {error}")
        if not by_hand:
            print("--", flush=True)


try:
    main()
except KeyboardInterrupt:
    pass
