"""METHOD URL: what the standard library prints to a user. Every script here has the same arguments and output."""
import sys
import urllib.error
import urllib.request

method, url = sys.argv[1:3]
request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error, error.read().decode())
