"""ClickHouse as a test peer: its engine from a wheel (chdb), behind the little of its HTTP interface that is used.

`python clickhouse_front.py PORT FOLDER`; the folder keeps the data over a kill. One request at a time.
"""

import gzip
import http.server
import re
import sys
from urllib.parse import parse_qs, urlsplit

from chdb.session import Session

CODE = re.compile(r"Code: (\d+)\.")


class Front(http.server.BaseHTTPRequestHandler):
    """Answers POST /?database=…&query=… with a body that follows the query."""

    session: Session

    def do_GET(self):
        self._answer(200, b"Ok.\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        sql = "\n".join(
            part for part in (query.get("query"), body.decode("utf-8", "surrogateescape")) if part
        )
        if (self.headers["X-ClickHouse-User"], self.headers["X-ClickHouse-Key"]) != ("analyst", "p@ss/word"):
            self._answer(403, b"Code: 516. Authentication failed", "516")
            return
        try:
            self.session.query(f"USE {query['database']}")
            self._answer(200, self.session.query(sql, "CSV").bytes() or b"")
        except RuntimeError as error:
            code = CODE.search(str(error))
            self._answer(500, str(error).encode(), code[1] if code else "")

    def log_message(self, *_args):
        pass

    def _answer(self, status, body, code=None):
        self.send_response(status)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Front.session = Session(sys.argv[2])
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
