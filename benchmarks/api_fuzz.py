"""schemathesis against the service's own description: what the API says is what it does.

    python benchmarks/api_fuzz.py [--examples 200]

All checks but two. That a request that fits the description is accepted: no description can say
which bytes are an X-ray, so most of its uploads are rightly refused. And that made-up credentials
are refused: it sends them in one header beside the true key in the other, which is a valid request;
tests/service/test_api.py tries every route without a key and with wrong ones.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import serving

from pulmofuse.service import Trail, open_database


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="per operation")
    options = parser.parse_args()
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        database = str(home / "trail.sqlite")
        trail = Trail(open_database(database))
        key = trail.add_key("schemathesis")
        trail.close()
        server = serving.Server.of_bundle(
            serving.make_bundle(home / "bundle"), database, home / "log",
            "--rate-per-minute", "1e6", "--burst", "100000",
        )  # fmt: skip
        with server:
            server.start()
            done = subprocess.run(
                [
                    sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
                    "--header", f"X-API-Key: {key}", "--max-examples", str(options.examples),
                    "--exclude-checks", "positive_data_acceptance,ignored_auth", "--no-color",
                ],
                capture_output=True, text=True, check=False, cwd=home,
            )  # fmt: skip
            code = server.stop()
    print(done.stdout[-6000:], done.stderr[-2000:])
    cases = re.search(r"([\d,]+) generated", done.stdout)
    found = {
        "exit_code": done.returncode,
        "cases": int(cases[1].replace(",", "")) if cases else None,
        "summary": done.stdout.splitlines()[-12:],
        "server_exit_code": code,
    }
    machine.write("api_fuzz", "python benchmarks/api_fuzz.py", found, facts)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
