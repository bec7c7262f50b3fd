"""METHOD URL: calls the gRPC method in the URL's path; METHOD is Unary or Stream."""
import sys
from urllib.parse import urlsplit

import grpc

kind, url = sys.argv[1:3]
url = urlsplit(url)
channel = grpc.secure_channel(f"{url.hostname}:{url.port or 443}", grpc.ssl_channel_credentials())
try:
    if kind == "Stream":
        print("OK", b" ".join(channel.unary_stream(url.path)(b"hello", timeout=30)).decode())
    else:
        print("OK", channel.unary_unary(url.path)(b"hello", timeout=30).decode())
except grpc.RpcError as error:
    print(error.code(), error.details())
