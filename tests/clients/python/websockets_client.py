"""METHOD URL: says hello on a WebSocket and prints what comes back."""
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

url = sys.argv[2].replace("https://", "wss://", 1)
try:
    with connect(url, open_timeout=30) as socket:
        socket.send("hello")
        print("101", socket.recv(timeout=30))
except InvalidStatus as error:
    print(error.response.status_code, error.response.reason_phrase, (error.response.body or b"").decode())
