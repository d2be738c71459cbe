"""Notes over HTTP, kept in SQLite: an application to try a mirror with. A note that was answered with 201 is
committed, and so on both servers' disks.

POST /notes (the text as body) -> 201 and its number; GET /notes -> all, one per line; GET /holdfast-ready.
"""

import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

path, port, node = sys.argv[1], int(sys.argv[2]), sys.argv[3]
limit = 64 * 1024
lock = threading.Lock()
db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
# Each commit is synced: in WAL mode that is not the default.
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


class Notes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Holdfast-Node", node)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/holdfast-ready":
            with lock:
                db.execute("SELECT 1 FROM notes LIMIT 1").fetchall()
            self.answer(204)
        elif self.path == "/notes":
            with lock:
                rows = db.execute("SELECT id, text FROM notes ORDER BY id").fetchall()
            self.answer(200, "".join(f"{number} {text}\n" for number, text in rows))
        else:
            self.answer(404, "no such page\n")

    def do_POST(self):
        given = self.headers.get("Content-Length", "")
        length = int(given) if given.isdecimal() else 0
        if self.path != "/notes" or not 0 < length <= limit:
            self.close_connection = True
            self.answer(400, f"POST /notes with 1 to {limit} bytes\n")
            return
        text = self.rfile.read(length).decode("utf-8", "replace").replace("\n", " ")
        with lock:
            number = db.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid
        self.answer(201, f"{number}\n")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Notes).serve_forever()
