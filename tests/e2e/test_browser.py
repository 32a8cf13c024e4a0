"""A real browser: what a page of another origin can send to a server without tokens, and what our own pages can.

Chromium runs without a window, opens a page, and prints the document that the page's scripts have made of it.
"""

import http.server
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from processes import program

# Tries what needs no CORS preflight, and what needs one; then says whether a response could be read.
HOSTILE = """<!doctype html><title>hostile</title><pre id="result">running</pre><script>
const H = "SERVER";
const tries = {
  push: [H + "/v1/series?role=leader&source=leader_scrape",
    {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body: "hostile 1\\n"}],
  untyped: [H + "/v1/series/delete",
    {method: "POST", mode: "no-cors", body: new Blob(['{"match": ["kept"]}'])}],
  lease: [H + "/v1/leases/hostile/acquire",
    {method: "POST", mode: "no-cors", body: new Blob(['{"holder": "page", "ttl": "300d"}'])}],
  typed: [H + "/v1/leases/hostile/acquire", {method: "POST", headers: {"Content-Type": "application/json"},
    body: '{"holder": "page", "ttl": "1h"}'}],
  read: [H + "/v1/series", {}],
};
(async () => {
  const result = {};
  for (const [name, [url, init]] of Object.entries(tries)) {
    try { const r = await fetch(url, init); result[name] = r.type + " " + r.status; }
    catch (error) { result[name] = "failed"; }
  }
  document.getElementById("result").textContent = JSON.stringify(result);
})();
</script>"""

@pytest.fixture
def page_server():
    """Serves one page, on an origin of its own."""
    servers = []

    def serve(text: str) -> str:
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture
def dump(tmp_path):
    """Opens an address in the browser, and returns the document as it is when its scripts are done."""

    def dump(url: str, *options: str) -> str:
        command = [
            program("chromium", "chromium"),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            f"--user-data-dir={tmp_path / 'browser'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            *options,
            url,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout.decode()

    return dump


def result_of(document: str) -> dict:
    """What the page's script has found."""
    text = re.search(r'<pre id="result">(.*?)</pre>', document, re.DOTALL)
    assert text, document[:2000]
    return json.loads(text.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def read(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_hostile_page_changes_and_reads_nothing(holdall, page_server, dump):
    push = holdall.url("/v1/series?role=leader&source=leader_scrape")
    kept = urllib.request.Request(push, data=b"kept 1\n", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(kept).close()
    result = result_of(dump(page_server(HOSTILE.replace("SERVER", holdall.url()))))
    # What needs no preflight was sent, and its response hidden; the others were not sent at all.
    assert result["typed"] == result["read"] == "failed", result
    assert all(result[name] == "opaque 0" for name in ("push", "untyped", "lease")), result
    _, series = read(holdall.url("/v1/series"))
    assert [point["name"] for point in series["points"]] == ["kept"]
    assert read(holdall.url("/v1/leases/hostile"))[0] == 404


def test_a_rebound_host_name_reads_nothing(holdall, dump):
    # For the browser this is the attacker's origin, so its pages could read every response.
    rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    port = holdall.url().rsplit(":", 1)[1]
    assert "host_refused" in dump(f"http://evil.example:{port}/v1/series", rebound)
    assert '"points"' in dump(holdall.url("/v1/series"))


def test_our_own_page_works(holdall, dump):
    document = dump(holdall.url("/docs/"))
    for text in ("pushSeries", "/v1/leases/{name}/acquire"):
        assert text in document, document[:2000]
