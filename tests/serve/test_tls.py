"""https, with a certificate that a client verifies."""

from __future__ import annotations

import shutil
import signal
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest
from tests.cli.story import Shell, write_script
from tests.serve.harness import QUESTION

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of this machine's name, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_a_client_that_verifies_the_certificate_is_served_and_others_are_not(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    certificate, key = pair
    words = ("-m", write_script(tmp_path / "replies.jsonl"), "--mode", "guided")
    process = Shell(tmp_path).start(
        "serve", "--port", "0", *words, "--tls-cert", str(certificate), "--tls-key", str(key)
    )
    assert process.stderr is not None
    address = next(line for line in process.stderr if b" at https://" in line).split(b" at ")[1].split()[0].decode()
    try:
        trusted = ssl.create_default_context(cafile=certificate)
        with httpx2.Client(base_url=address, verify=trusted, trust_env=False, timeout=30) as client:
            answer = client.post("/v1/chat/completions", json={"messages": [QUESTION]})
            assert answer.status_code == 200, answer.text
            assert client.get("/health", headers={"origin": address}).status_code == 200
            plain = address.replace("https", "http")
            assert client.get("/health", headers={"origin": plain}).status_code == 403  # another site
        with httpx2.Client(trust_env=False) as stranger:
            with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                stranger.get(f"{address}/health")
            with pytest.raises(httpx2.HTTPError):
                stranger.get(f"{plain}/health")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_certificate_without_its_key_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    words = ("-m", write_script(tmp_path / "replies.jsonl"), "--tls-cert", str(pair[0]))
    found = Shell(tmp_path).run("serve", *words, check=2)
    assert "--tls-cert and --tls-key: one is missing" in found.stderr
    found = Shell(tmp_path).run("serve", *words, "--tls-key", "nowhere.pem", check=2)
    assert "nowhere.pem: no such file" in found.stderr
