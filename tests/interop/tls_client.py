#!/usr/bin/env python3
"""A client that speaks TLS: sends what it reads, and shows what it receives.

Usage: tls_client.py PORT CA_FILE
"""
import os
import socket
import ssl
import sys
import threading

context = ssl.create_default_context(cafile=sys.argv[2])
connection = socket.create_connection(("localhost", int(sys.argv[1])))
connection = context.wrap_socket(connection, server_hostname="localhost")


def show():
    while received := connection.recv(4096):
        os.write(1, received)


threading.Thread(target=show, daemon=True).start()
while typed := os.read(0, 4096):
    connection.sendall(typed)
